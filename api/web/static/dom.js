// Elements of the page.

/**
 * The element with an id, of a class.
 * @template {HTMLElement} T
 * @overload
 * @param {string} id
 * @param {new () => T} kind
 * @returns {T}
 */
/**
 * @overload
 * @param {string} id
 * @returns {HTMLElement}
 */
/** @param {string} id */
export function byId(id, kind = HTMLElement) {
  const node = document.getElementById(id);
  if (node instanceof kind) return node;
  throw new Error(`expected a ${kind.name} #${id} in the page, found ${node}`);
}

/**
 * The HTML elements that match a selector, in order.
 * @param {string} selector
 * @param {ParentNode} root
 */
export function all(selector, root = document) {
  return [...root.querySelectorAll(selector)].filter((node) => node instanceof HTMLElement);
}

/**
 * A datum that the template gave the page.
 * @param {string} name
 */
export function datum(name) {
  const value = document.body.dataset[name];
  if (value === undefined) throw new Error(`expected data-${name} in the page, found none`);
  return value;
}

/**
 * The panel that an element lies in.
 * @param {Element} node
 */
export function panelOf(node) {
  const panel = node.closest("section");
  if (panel === null) throw new Error(`expected a panel around #${node.id}`);
  return panel;
}

/**
 * A canvas of a size, and its 2D context.
 * @param {number} width
 * @param {number} height
 */
export function makeCanvas(width, height) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  if (context === null) throw new Error("the browser has no 2D canvas");
  return { canvas, context };
}
