// Starts the page: the bar on top, and below it the page that the address names.

import { fill, h } from "./dom.js";
import { icon } from "./icons.js";
import { apiKey, apiUrl, setApiKey } from "./api/server.js";
import { linkFailure, onModels, refreshModels } from "./api/models.js";
import { openDialog } from "./overlay.js";
import { applyTheme, onPreference, prefer, preference } from "./preferences.js";
import { listen, openHelp } from "./shortcuts.js";
import { language, t } from "./words.js";
import { ChatPage } from "./chat/page.js";
import { ExpertsPage } from "./experts/page.js";
import { ServerPage } from "./server/page.js";
import { TrainingPage } from "./training/page.js";

const PAGES = { chat: ChatPage, experts: ExpertsPage, server: ServerPage, training: TrainingPage };
const ICONS = { chat: "chat", experts: "experts", server: "server", training: "training" };
const THEMES = ["auto", "light", "dark"];
const THEME_ICONS = { auto: "auto", light: "sun", dark: "moon" };
const MODELS_GAP = 5000; // milliseconds between looks at which models there are

let page = null;
const bar = h("header", { class: "topbar" });
const link = h("span", { class: "link-state", role: "status" });
const app = document.getElementById("app");

function pageName() {
  const name = location.hash.replace(/^#\/?/, "").split("/")[0];
  return name in PAGES ? name : "chat";
}

function drawLink() {
  const failure = linkFailure();
  link.classList.toggle("lost", failure !== null);
  link.title = failure ? t(failure.status === 401 ? "link.key" : "link.lost") : t("link.up");
  fill(link, h("span", {}, link.title));
}

function drawBar() {
  const theme = preference("theme");
  const tool = (name, label, onclick, more = "") => h("button", { class: `icon-button ${more}`, type: "button", title: label, "aria-label": label, onclick }, name);
  fill(bar,
    h("a", { class: "skip", href: "#main", onclick: (event) => { event.preventDefault(); document.getElementById("main")?.querySelector("textarea, button, select, a")?.focus(); } }, t("skip")),
    h("div", { class: "brand" }, h("img", { src: apiUrl("studio/icon.svg"), alt: "", width: 24, height: 24 }), h("span", { class: "name" }, "deepseek ", h("span", { class: "weak" }, "studio"))),
    h("nav", { class: "tabs", "aria-label": t("pages") }, Object.keys(PAGES).map((name) =>
      h("a", { href: `#/${name}`, "aria-current": name === pageName() ? "page" : null }, icon(ICONS[name]), h("span", {}, t(`page.${name}`))))),
    h("div", { class: "end" }, link,
      tool(icon("help"), t("help"), openHelp, "optional"),
      tool(t("language.other"), t("language.switch"), switchLanguage),
      tool(icon(THEME_ICONS[theme]), t(`theme.${theme}`), switchTheme)));
  drawLink();
}

function drawPage() {
  page?.leave();
  page = new PAGES[pageName()]();
  document.documentElement.lang = language() === "zh" ? "zh-CN" : "en";
  document.title = `${t(`page.${pageName()}`)} · deepseek studio`;
  fill(app, h("div", { class: "frame" }, bar, page.element));
}

function drawAll() {
  drawBar();
  drawPage();
}

function switchLanguage() {
  prefer("language", language() === "en" ? "zh" : "en");
}

function switchTheme() {
  prefer("theme", THEMES[(THEMES.indexOf(preference("theme")) + 1) % THEMES.length]);
}

let asking = false;

function askForKey() {
  if (asking) return;
  asking = true;
  const dialog = openDialog(t("key.title"), (close) => {
    const field = h("input", { type: "password", autocomplete: "off", "aria-label": t("key.title"), value: apiKey() });
    return h("form", {
      onsubmit: (event) => {
        event.preventDefault();
        setApiKey(field.value.trim());
        close();
        refreshModels();
      },
    }, h("p", { class: "weak" }, t("key.text")), field, h("div", { class: "dialog-foot spaced" }, h("button", { class: "button primary", type: "submit" }, t("key.use"))));
  }, { narrow: true });
  dialog.addEventListener("close", () => setTimeout(() => (asking = false), 30_000));
}

function act(name) {
  if (name.startsWith("page.")) location.hash = `#/${name.slice(5)}`;
  else if (name === "language") switchLanguage();
  else if (name === "theme") switchTheme();
  else if (name === "help") openHelp();
  else {
    const used = page.shortcut(name);
    // Leaves the field too, so that single keys work from there on.
    if (name === "escape") document.activeElement?.blur();
    return used;
  }
  return true;
}

async function watchModels() {
  if (!document.hidden) await refreshModels();
  setTimeout(watchModels, MODELS_GAP);
}

applyTheme();
onPreference("theme", () => {
  applyTheme();
  drawBar();
  page.themeChanged?.();
});
onPreference("language", drawAll);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => page.themeChanged?.());
addEventListener("hashchange", drawAll);
onModels(() => {
  drawLink();
  if (linkFailure()?.status === 401) askForKey();
});
listen(act);
drawAll();
watchModels();
