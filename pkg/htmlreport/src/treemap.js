import { TreemapChart } from "echarts/charts";
import { TooltipComponent } from "echarts/components";
import { init, use } from "echarts/core";
import { SVGRenderer } from "echarts/renderers";

import { size } from "./format.js";
import { tooltip, tooltipStyle } from "./tooltip.js";

use([SVGRenderer, TooltipComponent, TreemapChart]);

// White text is readable on all of these colors.
const palette = ["#0969da", "#1a7f37", "#8250df", "#9a6700", "#bf3989", "#bc4c00", "#1b7c83", "#57606a"];

// createTreemap draws the content of an image, with a list of the same entries for the keyboard and screen readers.
export function createTreemap(element, root) {
  const chart = init(element, null, { renderer: "svg" });
  const crumbs = document.querySelector(`.crumbs[data-image="${element.dataset.image}"]`);
  const list = document.querySelector(`.entries[data-image="${element.dataset.image}"]`);
  root.children?.forEach((layer, i) => (layer.color = palette[i % palette.length]));
  let path = [root];

  // item returns a node with its children to the given depth in the form of the chart.
  function item(node, color, depth) {
    const children = depth > 1 ? node.children?.map((child) => item(child, color, depth - 1)) : undefined;
    return {
      name: node.name, value: node.area, node, children,
      itemStyle: { color, borderColor: children ? color : "var(--background)", gapWidth: 1, borderWidth: 1 },
    };
  }

  function draw() {
    const directory = path[path.length - 1];
    const color = path[1]?.color;
    chart.setOption(
      {
        animation: false,
        tooltip: {
          ...tooltipStyle,
          formatter: ({ data }) => (data?.node ? tooltip(data.node.name, describe(data.node, path.length)) : ""),
        },
        series: [{
          type: "treemap", left: 0, top: 0, right: 0, bottom: 0, roam: false, nodeClick: false,
          breadcrumb: { show: false }, visibleMin: 40, childrenVisibleMin: 2000,
          label: {
            formatter: ({ data }) => `${data.name}\n${size(data.node.bytes)}`, color: "#ffffff", lineHeight: 16,
            overflow: "truncate", position: "insideTopLeft", distance: 4,
          },
          upperLabel: {
            show: true, height: 20, color: "#ffffff", overflow: "truncate",
            formatter: ({ data }) => (data?.node ? `${data.name}  ${size(data.node.bytes)}` : ""),
          },
          emphasis: { label: { color: "#ffffff" }, upperLabel: { color: "#ffffff" } },
          levels: [{ upperLabel: { show: false }, itemStyle: { borderWidth: 0, gapWidth: 2, borderColor: "var(--background)" } }],
          data: (directory.children ?? []).map((child) => item(child, color ?? child.color, 4)),
        }],
      },
      { notMerge: true },
    );
    crumbs.replaceChildren(...path.flatMap((node, i) => (i === path.length - 1 ? [node.name] : [link(node.name, i), "›"])));
    const children = (directory.children ?? []).toSorted((a, b) => b.area - a.area);
    list.replaceChildren(...children.map((child) => entry(child, path.length)));
  }

  function link(name, i) {
    return button(name, () => {
      path = path.slice(0, i + 1);
      draw();
      (crumbs.querySelector("button") ?? list.querySelector("button") ?? list).focus();
    });
  }

  function entry(node, depth) {
    const row = document.createElement("li");
    const name = document.createElement("span");
    if (node.children) {
      name.append(button(node.name, () => enter([node])));
    } else {
      name.textContent = node.name;
    }
    name.className = "label";
    const bytes = document.createElement("span");
    bytes.className = "number";
    bytes.textContent = size(node.bytes);
    bytes.title = describe(node, depth);
    row.append(name, bytes);
    return row;
  }

  function enter(nodes) {
    path = [...path, ...nodes];
    draw();
    crumbs.querySelector("button:last-of-type").focus();
  }

  chart.on("click", ({ data, treePathInfo }) => {
    if (!data?.node) {
      return;
    }
    const names = treePathInfo.slice(1).map((info) => info.name);
    const nodes = [];
    for (let at = path[path.length - 1], i = 0; i < names.length; i++) {
      at = at.children?.find((child) => child.name === names[i]);
      if (!at?.children) {
        break;
      }
      nodes.push(at);
    }
    if (nodes.length) {
      enter(nodes);
    }
  });
  let width = 0;
  new ResizeObserver(() => {
    if (element.clientWidth !== width && element.clientWidth > 0) {
      width = element.clientWidth;
      chart.resize();
    }
  }).observe(element);
  draw();
}

// describe returns the size of a node. depth is the number of nodes above it.
function describe(node, depth) {
  return `${size(node.bytes)} ${depth > 1 ? "unpacked" : "compressed"}`;
}

function button(text, action) {
  const element = document.createElement("button");
  element.type = "button";
  element.textContent = text;
  element.addEventListener("click", action);
  return element;
}
