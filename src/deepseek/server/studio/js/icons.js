// Line icons on a grid of 24, drawn for this page.

import { svg } from "./dom.js";

const PATHS = {
  chat: "M4 6a2 2 0 0 1 2-2h12a2 2 0 0 1 2 2v9a2 2 0 0 1-2 2h-7l-5 4v-4a2 2 0 0 1-2-2z",
  experts: "M4 4h4v4H4z M10 4h4v4h-4z M16 4h4v4h-4z M4 10h4v4H4z M10 10h4v4h-4z M16 10h4v4h-4z M4 16h4v4H4z M10 16h4v4h-4z M16 16h4v4h-4z",
  server: "M3 13h4l3-8 4 14 3-8h4",
  training: "M4 4v16h16 M7 8c2 6 5 8 12 8",
  plus: "M12 5v14 M5 12h14",
  send: "M12 19V5 M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
  copy: "M9 9h10v11H9z M15 9V4H5v11h4",
  check: "M5 13l4 4L19 7",
  edit: "M4 20l1-4L16 5l3 3L8 19z M14 7l3 3",
  again: "M4 12a8 8 0 0 1 14-5l2 2 M20 4v5h-5 M20 12a8 8 0 0 1-14 5l-2-2 M4 20v-5h5",
  forward: "M5 12h13 M12 5l7 7-7 7",
  left: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  down: "M5 9l7 7 7-7",
  settings: "M4 8h8 M18 8h2 M15 5.500a2.500 2.500 0 1 0 0 5 2.500 2.500 0 0 0 0-5z M4 16h2 M12 16h8 M9 13.500a2.500 2.500 0 1 0 0 5 2.500 2.500 0 0 0 0-5z",
  menu: "M4 5h16v14H4z M10 5v14",
  close: "M6 6l12 12 M18 6L6 18",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8z M12 2v2 M12 20v2 M2 12h2 M20 12h2 M5 5l1.5 1.5 M17.5 17.5L19 19 M5 19l1.5-1.5 M17.5 6.5L19 5",
  moon: "M20 14A8.5 8.5 0 1 1 10 4a7 7 0 0 0 10 10z",
  auto: "M12 4a8 8 0 1 0 0 16z M12 4a8 8 0 0 1 0 16",
  trash: "M4 7h16 M9 7V4h6v3 M6 7l1 13h10l1-13",
  download: "M12 4v11 M7 11l5 5 5-5 M5 20h14",
  upload: "M12 16V5 M7 9l5-5 5 5 M5 20h14",
  code: "M8 7l-5 5 5 5 M16 7l5 5-5 5",
  columns: "M4 5h16v14H4z M12 5v14",
  help: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z M9.5 9.5a2.5 2.5 0 1 1 3.5 2.3c-.7.3-1 .8-1 1.7 M12 17v.01",
  tokens: "M4 8h5v8H4z M11 8h4v8h-4z M17 8h3v8h-3z",
  play: "M8 5l11 7-11 7z",
  clip: "M20 11l-8.500 8.500a5 5 0 0 1-7-7L13 4a3.300 3.300 0 0 1 4.700 4.700L9.500 17a1.700 1.700 0 0 1-2.400-2.400L14.500 7",
  file: "M6 3h8l4 4v14H6z M14 3v4h4 M9 12h6 M9 16h6",
  tool: "M14 6a4 4 0 0 1 5-2l-2.500 2.500 1.500 1.500L20.500 5.500a4 4 0 0 1-5.500 5L8 18a2 2 0 0 1-3-3z",
  thought: "M9 18h6 M10 21h4 M12 3a6 6 0 0 0-4 10.5c.7.7 1 1.500 1 2.500h6c0-1 .3-1.800 1-2.500A6 6 0 0 0 12 3z",
};

export function icon(name) {
  return svg(
    "svg",
    {
      class: "icon", viewBox: "0 0 24 24", fill: "none", stroke: "currentColor", "aria-hidden": "true",
      "stroke-width": "1.7", "stroke-linecap": "round", "stroke-linejoin": "round",
    },
    svg("path", { d: PATHS[name] }),
  );
}
