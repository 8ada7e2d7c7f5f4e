// A plot as a picture, and what it shows as a table.

// What a picture needs of the page's style: as a file it has none.
const STYLE = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin",
  "font-size", "font-weight", "paint-order", "visibility"];
const SCALE = 2; // pixels of the picture for each of the page

function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function standalone(svg) {
  const copy = svg.cloneNode(true);
  const { width, height } = svg.getBoundingClientRect();
  const originals = [svg, ...svg.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((node, i) => {
    const style = getComputedStyle(originals[i]);
    for (const name of STYLE) node.setAttribute(name, style.getPropertyValue(name));
  });
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("font-family", getComputedStyle(svg).fontFamily);
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  return { text: new XMLSerializer().serializeToString(copy), width, height };
}

async function savePicture(name, svg) {
  const { text, width, height } = standalone(svg);
  const address = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  try {
    const picture = new Image();
    picture.src = address;
    await picture.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width * SCALE, height * SCALE];
    const brush = canvas.getContext("2d");
    brush.fillStyle = getComputedStyle(svg.closest(".panel")).backgroundColor;
    brush.fillRect(0, 0, canvas.width, canvas.height);
    brush.drawImage(picture, 0, 0, canvas.width, canvas.height);
    save(`${name}.png`, await new Promise((done) => canvas.toBlob(done, "image/png")));
  } finally {
    URL.revokeObjectURL(address);
  }
}

const cell = (value) => {
  const text = String(value ?? "");
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

function saveTable(name, { columns, rows }) {
  const lines = [columns, ...rows].map((row) => row.map(cell).join(","));
  save(`${name}.csv`, new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
}

// Two buttons in the bar of each panel with a plot. `table(what)` gives the columns,
// with units, and rows of what the plot called `what` shows, or nothing. `failed(error)`
// is told why a file could not be made.
export function offerDownloads(run, table, failed) {
  for (const host of document.querySelectorAll(".plot[id]")) {
    const name = () => `${run()}-${host.id}`;
    const actions = {
      PNG: () => host.querySelector("svg") && savePicture(name(), host.querySelector("svg")),
      CSV: () => table(host.id) && saveTable(name(), table(host.id)),
    };
    const group = document.createElement("div");
    group.className = "downloads";
    for (const [kind, action] of Object.entries(actions)) {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", textContent: kind, className: "quiet" });
      const title = host.closest(".panel").querySelector("h2").textContent;
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
    host.closest(".panel").querySelector(".bar").append(group);
  }
}
