import { CustomChart } from "echarts/charts";
import { DataZoomComponent, GridComponent, TooltipComponent } from "echarts/components";
import { init, use } from "echarts/core";
import { SVGRenderer } from "echarts/renderers";

import { duration, time } from "./format.js";
import { describe } from "./log.js";
import { tooltip, tooltipStyle } from "./tooltip.js";

use([CustomChart, DataZoomComponent, GridComponent, SVGRenderer, TooltipComponent]);

const maxRows = 40; // visible at once
const narrow = 640; // pixels: below, names are above the bars
const mono = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'Liberation Mono', monospace";

// createTimeline draws a bar for each phase, step and state. open(bar, move) shows the log of a bar.
export function createTimeline(element, data, open) {
  const chart = init(element, null, { renderer: "svg" });
  const end = Math.max(data.seconds, ...data.bars.map((bar) => bar.end)) || 1;
  const shortest = Math.min(end, 0.05); // seconds that the chart can show at its full width
  let rows = [];
  let selected = -1;
  let range = [0, end];

  function draw() {
    const cached = document.getElementById("show-cached").checked;
    const bar = rows[selected];
    rows = data.bars.filter((b) => cached || b.status !== "cached");
    selected = rows.indexOf(bar);
    const wide = element.clientWidth >= narrow;
    const rowHeight = wide ? 24 : 40;
    const visible = Math.min(rows.length, maxRows);
    const scrolls = rows.length > maxRows;
    const left = wide ? Math.round(Math.min(360, element.clientWidth * 0.35)) : 4;
    element.style.height = `${visible * rowHeight + 84}px`;
    chart.resize();
    chart.setOption(
      {
        animation: false,
        grid: { left, right: scrolls ? 36 : 12, top: 28, bottom: 56 },
        xAxis: {
          type: "value", min: 0, max: end, position: "top",
          axisLabel: { formatter: time, color: "var(--muted)", hideOverlap: true, showMaxLabel: false },
          splitLine: { lineStyle: { color: "var(--line)" } },
        },
        yAxis: {
          type: "category", inverse: true, data: rows.map((_, i) => i), triggerEvent: true,
          axisLine: { show: false }, axisTick: { show: false },
          axisLabel: {
            show: wide, interval: 0, align: "left", margin: left - 4, width: left - 16, overflow: "truncate",
            fontFamily: mono, fontSize: 12,
            formatter: (i) => rows[i].name, color: (i) => (rows[i].kind === "step" ? "var(--text)" : "var(--muted)"),
          },
        },
        tooltip: {
          ...tooltipStyle,
          formatter: ({ dataIndex }) => tooltip(rows[dataIndex].name, describe(rows[dataIndex])),
        },
        dataZoom: [
          {
            id: "inside", type: "inside", xAxisIndex: 0, filterMode: "none", minValueSpan: shortest,
            startValue: range[0], endValue: range[1],
            zoomOnMouseWheel: "ctrl", moveOnMouseWheel: "shift", preventDefaultMouseMove: false,
          },
          {
            id: "slider", type: "slider", xAxisIndex: 0, filterMode: "none", minValueSpan: shortest, bottom: 8, height: 22,
            startValue: range[0], endValue: range[1], labelFormatter: time, ...sliderStyle,
          },
          ...(scrolls
            ? [{
                id: "rows", type: "slider", yAxisIndex: 0, filterMode: "filter", right: 4, width: 16, startValue: 0,
                endValue: maxRows - 1, zoomLock: true, showDetail: false, brushSelect: false, ...sliderStyle,
              }]
            : []),
        ],
        series: [{
          type: "custom", clip: true, encode: { x: [1, 2], y: 0 }, renderItem: (params, api) => render(params, api, wide),
          data: rows.map((b, i) => [i, b.start, b.end]),
        }],
      },
      { notMerge: true },
    );
    showRange();
  }

  // render returns the bar of a row, its label, and an area that makes the whole row clickable.
  function render(params, api, wide) {
    const i = params.dataIndex;
    const bar = rows[i];
    const area = params.coordSys;
    const [from, y] = api.coord([bar.start, i]);
    const to = api.coord([bar.end, i])[0];
    const height = api.size([0, 1])[1];
    const top = y - height / 2;
    const barHeight = bar.kind === "step" ? 14 : 8;
    const barTop = wide ? y - barHeight / 2 : top + height - 18;
    const width = Math.max(2, to - from);
    const took = duration(bar.end - bar.start);
    const label = { cached: "cached", failed: `✗ failed after ${took}` }[bar.status] ?? took;
    const room = label.length * 7 + 8;
    const start = Math.max(from, area.x);
    const stop = Math.min(from + width, area.x + area.width);
    const text = { text: label, y: barTop + barHeight / 2, verticalAlign: "middle", fontSize: 11, fill: "var(--muted)" };
    if (stop + room <= area.x + area.width || stop < area.x) {
      Object.assign(text, { x: stop + 6, align: "left" });
    } else if (start - room >= area.x) {
      Object.assign(text, { x: start - 6, align: "right" });
    } else {
      Object.assign(text, { x: stop - 6, align: "right", fill: "#ffffff", text: barHeight > 10 ? label : "" });
    }
    const children = [
      {
        type: "rect", shape: { x: area.x, y: top, width: area.width, height }, info: "row",
        style: i === selected ? { fill: "var(--shade)", stroke: "var(--focus)", lineWidth: 2 } : { fill: "transparent" },
      },
      { type: "rect", shape: { x: from, y: barTop, width, height: barHeight, r: 2 }, style: barStyle(bar) },
      { type: "text", style: text },
    ];
    if (!wide) {
      children.push({
        type: "text",
        style: {
          text: bar.name, x: area.x + 2, y: top + 11, verticalAlign: "middle", fontFamily: mono, fontSize: 12, fill: "var(--text)",
          width: area.width - 4, overflow: "truncate",
        },
      });
    }
    return { type: "group", children };
  }

  const move = (offset) => select(selected + offset);

  // select marks a row, makes it visible and announces it. It returns its bar, or undefined if there is none.
  function select(i) {
    if (!rows[i]) {
      return undefined;
    }
    selected = i;
    showRow(i);
    chart.setOption({ series: [{ data: rows.map((b, n) => [n, b.start, b.end]) }] });
    element.dataset.selected = rows[i].name;
    document.getElementById("timeline-selected").textContent =
      `${i + 1} of ${rows.length}: ${rows[i].name}, ${describe(rows[i])}`;
    return rows[i];
  }

  function showRow(i) {
    const zoom = chart.getOption().dataZoom.find((z) => z.id === "rows");
    if (!zoom || (zoom.startValue <= i && i <= zoom.endValue)) {
      return;
    }
    const startValue = i < zoom.startValue ? i : i - maxRows + 1;
    chart.dispatchAction({ type: "dataZoom", dataZoomId: "rows", startValue, endValue: startValue + maxRows - 1 });
  }

  function zoom(from, to) {
    const span = Math.min(end, Math.max(shortest, to - from));
    const startValue = Math.min(end - span, Math.max(0, from));
    chart.dispatchAction({ type: "dataZoom", dataZoomId: "slider", startValue, endValue: startValue + span });
  }

  // zoomBy shows a part of the range, around the selected bar if that is visible.
  function zoomBy(factor) {
    const bar = rows[selected];
    const middle = bar ? (bar.start + bar.end) / 2 : NaN;
    const center = range[0] <= middle && middle <= range[1] ? middle : (range[0] + range[1]) / 2;
    const span = (range[1] - range[0]) * factor;
    zoom(center - span / 2, center + span / 2);
  }

  function pan(part) {
    const by = (range[1] - range[0]) * part;
    zoom(range[0] + by, range[1] + by);
  }

  function showRange() {
    const { startValue, endValue } = chart.getOption().dataZoom[0];
    range = [startValue, endValue];
    document.getElementById("window").textContent =
      `${time(startValue)} to ${time(endValue)}${endValue - startValue < end ? ` of ${time(end)}` : ""}`;
  }

  const show = (bar) => bar && open(bar, move);
  const keys = {
    ArrowDown: () => move(1),
    ArrowUp: () => (selected < 0 ? select(0) : move(-1)),
    Home: () => select(0),
    End: () => select(rows.length - 1),
    Enter: () => show(rows[selected]),
    " ": () => show(rows[selected]),
    ArrowLeft: () => pan(-0.2),
    ArrowRight: () => pan(0.2),
    "+": () => zoomBy(0.5),
    "=": () => zoomBy(0.5),
    "-": () => zoomBy(2),
    0: () => zoom(0, end),
  };
  element.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey && !event.altKey && keys[event.key]) {
      event.preventDefault();
      keys[event.key]();
    }
  });
  const buttons = { in: () => zoomBy(0.5), out: () => zoomBy(2), reset: () => zoom(0, end) };
  for (const button of document.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", buttons[button.dataset.zoom]);
  }
  document.getElementById("show-cached").addEventListener("change", draw);
  chart.on("datazoom", showRange);
  chart.on("click", (event) => {
    element.focus();
    show(select(event.componentType === "yAxis" ? Number(event.value) : event.dataIndex));
  });
  let width = 0;
  new ResizeObserver(() => {
    if (element.clientWidth !== width && element.clientWidth > 0) {
      width = element.clientWidth;
      draw();
    }
  }).observe(element);
}

function barStyle(bar) {
  if (bar.status === "failed") {
    return { fill: "var(--bad)" };
  }
  if (bar.status === "cached") {
    return { fill: "var(--cached)" };
  }
  return { fill: `var(--${bar.kind})` };
}

const sliderStyle = {
  showDataShadow: false,
  borderColor: "var(--line)",
  backgroundColor: "var(--surface)",
  fillerColor: "var(--shade)",
  handleStyle: { color: "var(--background)", borderColor: "var(--muted)" },
  moveHandleStyle: { color: "var(--cached)" },
  textStyle: { color: "var(--muted)" },
  emphasis: { handleStyle: { borderColor: "var(--focus)" }, moveHandleStyle: { color: "var(--muted)" } },
};
