// Makes HTML and SVG elements. Text is always text: nothing that a model or a file name says becomes markup.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element. Properties are set as properties, `data-…`, `aria-…` and unknown ones as attributes. */
export function html(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** An SVG element; all properties are attributes. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Replace an element's children, unless the new ones look the same: then focus and pointer keep what they are on. */
export function renew(element, ...children) {
  const before = [...element.children].map((child) => child.outerHTML).join("");
  if (before !== children.map((child) => child.outerHTML).join("")) element.replaceChildren(...children);
}

/** The element with this id. It is part of the page's template, so it is there. */
export const byId = (id) => document.getElementById(id);

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name in element && !name.includes("-")) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}
