// The picture below a widget, for where there is no kernel: it is not shown while the widget is.

import { el } from "./dom.js";

/** Hide a widget's pictures, those to come too, until the function it returns is called. */
export function hideStills(id) {
  const picture = `.pipelab-still-${id}`;
  const rule = `${picture}, .jp-OutputArea-child:has(${picture}) { display: none !important; }`;
  const sheet = el("style", { text: rule });
  document.head.append(sheet);
  return () => sheet.remove();
}
