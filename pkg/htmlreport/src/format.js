// The formats of package humanize.

export function size(bytes) {
  let value = bytes;
  for (const unit of ["B", "kB", "MB", "GB", "TB"]) {
    if (Math.abs(value) < 999.5 || unit === "TB") {
      return `${digits(value, unit !== "B")} ${unit}`;
    }
    value /= 1000;
  }
}

export function duration(seconds) {
  if (seconds < 59.5) {
    return `${digits(seconds, true)} s`;
  }
  const whole = Math.round(seconds);
  if (whole < 3600) {
    return join(Math.floor(whole / 60), "min", whole % 60, "s");
  }
  const minutes = Math.round(seconds / 60);
  return join(Math.floor(minutes / 60), "h", minutes % 60, "min");
}

// time formats a time on an axis: 0.25 s, 12 s, 2:05, 1:02:05.
export function time(seconds) {
  if (seconds < 60) {
    return `${Number(seconds.toFixed(2))} s`;
  }
  const whole = Math.floor(seconds);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  if (parts[0] === 0) {
    parts.shift();
  }
  const rest = Math.round((seconds - whole) * 10);
  return parts.map((part, i) => String(part).padStart(i ? 2 : 1, "0")).join(":") + (rest > 0 && rest < 10 ? `.${rest}` : "");
}

function digits(value, decimals) {
  return decimals && Math.abs(value) < 9.95 ? String(Number(value.toFixed(1))) : value.toFixed(0);
}

function join(large, largeUnit, small, smallUnit) {
  return small === 0 ? `${large} ${largeUnit}` : `${large} ${largeUnit} ${small} ${smallUnit}`;
}
