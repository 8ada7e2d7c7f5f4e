// A plot as a picture, and what it shows as a table.
/** @import { Table } from "./data.js" */
import { all, makeCanvas, panelOf } from "./dom.js";

// Style that a picture takes from the page: as a file it has none.
const STYLE = [
  "fill",
  "fill-opacity",
  "stroke",
  "stroke-width",
  "stroke-dasharray",
  "stroke-linejoin",
  "font-size",
  "font-weight",
  "paint-order",
  "visibility",
];
const SCALE = 2; // pixels of the picture for each of the page

/**
 * @param {string} name
 * @param {Blob} blob
 */
function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** @param {SVGSVGElement} svg */
function standalone(svg) {
  const copy = document.importNode(svg, true);
  const { width, height } = svg.getBoundingClientRect();
  const originals = [svg, ...svg.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((node, i) => {
    const style = getComputedStyle(originals[i]);
    for (const name of STYLE) node.setAttribute(name, style.getPropertyValue(name));
  });
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("font-family", getComputedStyle(svg).fontFamily);
  copy.setAttribute("width", String(width));
  copy.setAttribute("height", String(height));
  return { text: new XMLSerializer().serializeToString(copy), width, height };
}

/**
 * @param {string} name
 * @param {SVGSVGElement} svg
 */
async function savePicture(name, svg) {
  const { text, width, height } = standalone(svg);
  const address = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  try {
    const picture = new Image();
    picture.src = address;
    await picture.decode();
    const { canvas, context } = makeCanvas(width * SCALE, height * SCALE);
    context.fillStyle = getComputedStyle(panelOf(svg)).backgroundColor;
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    /** @type {Blob | null} */
    const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
    if (blob === null) throw new Error("the browser made no picture");
    save(`${name}.png`, blob);
  } finally {
    URL.revokeObjectURL(address);
  }
}

/** @param {Table["rows"][number][number]} value */
function cell(value) {
  const text = String(value ?? "");
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/**
 * @param {string} name
 * @param {Table} table
 */
function saveTable(name, { columns, rows }) {
  const lines = [columns, ...rows].map((row) => row.map(cell).join(","));
  save(`${name}.csv`, new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
}

/**
 * Put two buttons into the bar of each panel with a plot.
 * @param {() => string} prefix Names of files begin with it
 * @param {(plot: string) => Table | null | undefined} table What the plot with an id shows, if any
 * @param {(error: unknown) => void} failed Gets the reason why a file could not be made
 */
export function offerDownloads(prefix, table, failed) {
  for (const host of all(".plot[id]")) {
    const name = () => `${prefix()}-${host.id}`;
    const actions = {
      PNG: async () => {
        const svg = host.querySelector("svg");
        if (svg) await savePicture(name(), svg);
      },
      CSV: () => {
        const shown = table(host.id);
        if (shown) saveTable(name(), shown);
      },
    };
    const group = document.createElement("div");
    group.className = "downloads";
    for (const [kind, action] of Object.entries(actions)) {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", textContent: kind, className: "quiet" });
      const title = panelOf(host).querySelector("h2")?.textContent;
      button.setAttribute("aria-label", `${title}: download ${kind}`);
      button.addEventListener("click", async () => {
        try {
          await action();
        } catch (error) {
          failed(error);
        }
      });
      group.append(button);
    }
    panelOf(host).querySelector(".bar")?.append(group);
  }
}
