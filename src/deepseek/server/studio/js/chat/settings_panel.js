// What the next request is sent with, for one pane.

import { fill, h } from "../dom.js";
import { icon } from "../icons.js";
import { knownModels, modelNamed } from "../api/models.js";
import { t } from "../words.js";
import { DEFAULT_SETTINGS, NUMBERS, schemaProblem } from "./request.js";
import { toolsProblem } from "./tool_calls.js";

function field(label, hint, ...controls) {
  return h("label", { class: "field" }, h("span", { class: "label" }, h("span", {}, label), hint && h("span", { class: "hint" }, hint)), controls);
}

/** A number that may be left to the server: the field is then empty, and the slider stands at a usual value. */
function numberSetting(session, { name, min, max, step, usual, open }) {
  const value = session.settings[name];
  const slider = h("input", { type: "range", min, max, step, value: value ?? usual, tabindex: "-1", "aria-hidden": "true" });
  const box = h("input", { type: "number", min, max: open ? null : max, step, value: value ?? "", placeholder: t("default"), "aria-label": t(`setting.${name}`) });
  const row = h("div", { class: "slider-row" }, slider, box);
  const set = (next) => {
    session.setSetting(name, next);
    row.classList.toggle("unset", next === null);
  };
  row.classList.toggle("unset", value === null || value === undefined);
  slider.addEventListener("input", () => {
    box.value = slider.value;
    set(Number(slider.value));
  });
  box.addEventListener("input", () => {
    box.setAttribute("aria-invalid", !box.validity.valid);
    if (!box.validity.valid) return;
    set(box.value === "" ? null : Number(box.value));
    slider.value = box.value === "" ? usual : box.value;
  });
  return h("div", { class: "field" },
    h("span", { class: "label" }, h("span", { title: t(`setting.${name}.hint`) }, t(`setting.${name}`)), h("code", { class: "hint" }, name)),
    row);
}

function textSetting(session, name, { rows, code = false, problem } = {}) {
  const complaint = h("span", { class: "problem", role: "alert", hidden: true });
  const area = h("textarea", { rows, class: code ? "code" : "", value: session.settings[name] ?? "", placeholder: t(`setting.${name}.placeholder`), spellcheck: code ? "false" : null });
  const check = () => {
    const wrong = problem?.(area.value) ?? null;
    complaint.hidden = wrong === null;
    fill(complaint, wrong === null ? "" : t(`setting.${name}.problem`, { reason: wrong }));
    area.setAttribute("aria-invalid", wrong !== null);
  };
  area.addEventListener("input", () => {
    session.setSetting(name, area.value);
    check();
  });
  check();
  return field(t(`setting.${name}`), null, area, complaint);
}

function seedSetting(session) {
  const box = h("input", { type: "number", step: 1, min: 0, value: session.settings.seed ?? "", placeholder: t("setting.seed.placeholder") });
  box.addEventListener("input", () => session.setSetting("seed", box.value === "" ? null : Math.trunc(Number(box.value))));
  return field(t("setting.seed"), null, box);
}

export function modelPicker(session, { label = true } = {}) {
  const select = h("select", {
    "aria-label": t("model"), value: modelNamed(session.settings.model)?.id ?? "",
    onchange: () => {
      session.setSetting("model", select.value);
      session.events.emit("open");
    },
  }, knownModels().map(({ id }) => h("option", { value: id }, id)));
  if (!knownModels().length) select.append(h("option", { value: "" }, t("model.none")));
  return label ? field(t("model"), null, select) : select;
}

export class SettingsPanel {
  constructor(session, { close }) {
    this.session = session;
    this.close = close;
    this.body = h("div", { class: "settings-body" });
    this.element = h("aside", { class: "settings", "aria-label": t("settings") }, this.body);
    this.draw();
  }

  draw() {
    const { session } = this;
    const two = session.current.panes.length === 2;
    const probabilities = h("input", { type: "checkbox", checked: session.settings.probabilities !== false, onchange: (event) => session.setSetting("probabilities", event.target.checked) });
    fill(this.body,
      h("div", { class: "settings-head" }, h("h2", {}, t("settings")),
        h("button", { class: "icon-button", type: "button", "aria-label": t("close"), onclick: this.close }, icon("close"))),
      two && h("div", { class: "segments", role: "group", "aria-label": t("compare") }, ["A", "B"].map((letter, place) =>
        h("button", { type: "button", "aria-pressed": session.active === place, onclick: () => { session.active = place; session.events.emit("active"); } }, t("pane", { letter })))),
      modelPicker(session),
      textSetting(session, "system", { rows: 3 }),
      h("hr"),
      NUMBERS.map((spec) => numberSetting(session, spec)),
      seedSetting(session),
      textSetting(session, "stop", { rows: 2, code: true }),
      textSetting(session, "schema", { rows: 5, code: true, problem: schemaProblem }),
      textSetting(session, "tools", { rows: 4, code: true, problem: toolsProblem }),
      h("label", { class: "check" }, probabilities, t("setting.probabilities")),
      h("button", { class: "button small", type: "button", onclick: () => this.#reset() }, t("settings.reset")));
  }

  #reset() {
    const { model } = this.session.settings;
    for (const [name, value] of Object.entries({ ...DEFAULT_SETTINGS, model })) this.session.setSetting(name, value);
    this.draw();
  }
}
