// What the chat page is about now: the conversations, the open one, and the answers under way.

import { Emitter } from "../emitter.js";
import { prefer, preference } from "../preferences.js";
import { addNode, choose, newConversation, pathTo, settle } from "./conversation.js";
import { answerInto } from "./answer.js";
import { DEFAULT_SETTINGS } from "./request.js";
import { isAnswered } from "./tool_calls.js";
import * as storage from "./storage.js";

const SAVE_GAP = 1000; // milliseconds between saves while an answer comes

export class Session {
  events = new Emitter(); // "list", "open" (another conversation or its panes), "tree", "node" (id), "running"
  conversations = [];
  current = newConversation(startSettings());
  active = 0; // the pane that settings and shortcuts are about
  requests = new Map(); // node id -> {body, chunks}: for the inspector, of answers made since the page was opened
  #running = new Map(); // node id -> AbortController
  #saving = new Map();

  async load() {
    this.lasting = await storage.openStorage();
    this.conversations = (await storage.allConversations()).map(settle).sort((a, b) => b.updated - a.updated);
    if (this.conversations.length && !location.hash.includes("new")) this.current = this.conversations[0];
    this.events.emit("list");
    this.events.emit("open");
  }

  get pane() {
    return this.current.panes[Math.min(this.active, this.current.panes.length - 1)];
  }

  get settings() {
    return this.pane.settings;
  }

  open(conversation) {
    this.current = conversation;
    this.active = 0;
    this.events.emit("open");
  }

  startNew() {
    this.open(newConversation(startSettings()));
  }

  setSetting(name, value) {
    this.settings[name] = value;
    if (this.active === 0) prefer("generation", { ...this.settings, system: "", schema: "", tools: "" });
    if (this.conversations.includes(this.current)) this.#save(this.current);
  }

  toggleCompare() {
    const { panes } = this.current;
    if (panes.length === 2) this.keepPane(0);
    else {
      panes.push({ leaf: panes[0].leaf, settings: { ...panes[0].settings } });
      this.events.emit("open");
    }
  }

  /** Ends the comparison with what pane `place` shows. */
  keepPane(place) {
    this.current.panes = [this.current.panes[place]];
    this.active = 0;
    this.#changed();
    this.events.emit("open");
  }

  isRunning(id) {
    return id === undefined ? this.#running.size > 0 : this.#running.has(id);
  }

  stop() {
    for (const controller of this.#running.values()) controller.abort();
  }

  /** Sends `text` in every pane; panes that are at the same place share the message. files: [{name, text}]. */
  send(text, files = []) {
    const asked = new Map();
    for (const pane of this.current.panes) {
      if (!asked.has(pane.leaf)) asked.set(pane.leaf, addNode(this.current, pane.leaf, { role: "user", content: text, files }));
      this.#answer(pane, asked.get(pane.leaf).id);
    }
  }

  /** Another answer beside `node`. */
  regenerate(pane, node) {
    this.#answer(pane, node.parent);
  }

  /** Goes on with an answer, in place. */
  resume(pane, node) {
    this.#run(pane, node, true);
  }

  /** A changed question is asked anew; a changed answer stands beside the old one. */
  edit(pane, node, text) {
    const fields = node.role === "user" ? { role: "user", content: text, files: node.files } : {
      role: "assistant", content: text, reasoning: node.reasoning, status: "edited", model: node.model, settings: node.settings,
    };
    const added = addNode(this.current, node.parent, fields);
    if (node.role === "user") this.#answer(pane, added.id);
    else {
      pane.leaf = added.id;
      this.#changed();
    }
  }

  /** What a call of a tool gave; with all of them known, the model goes on. */
  giveResult(pane, node, call, text) {
    call.result = text;
    if (isAnswered(node)) this.#answer(pane, node.id);
    else this.#changed();
  }

  show(pane, node) {
    choose(this.current, pane, node);
    this.#changed();
  }

  rename(conversation, title) {
    conversation.title = title;
    this.#save(conversation);
    this.events.emit("list");
  }

  async remove(conversation) {
    this.conversations = this.conversations.filter((other) => other !== conversation);
    await storage.deleteConversation(conversation.id);
    this.events.emit("list");
    if (conversation === this.current) {
      this.stop();
      this.startNew();
    }
  }

  add(conversations) {
    this.conversations.unshift(...conversations);
    for (const conversation of conversations) this.#save(conversation);
    this.events.emit("list");
    if (conversations.length) this.open(conversations[0]);
  }

  #answer(pane, parent) {
    const node = addNode(this.current, parent, { role: "assistant", content: "", reasoning: "", status: "streaming" });
    pane.leaf = node.id;
    this.#run(pane, node, false);
  }

  async #run(pane, node, partial) {
    const conversation = this.current;
    const controller = new AbortController();
    this.#running.set(node.id, controller);
    if (!this.conversations.includes(conversation)) this.conversations.unshift(conversation);
    node.settings = { ...pane.settings };
    const path = pathTo(conversation, partial ? node.id : node.parent);
    this.#changed();
    this.events.emit("list");
    this.events.emit("running");
    const log = { body: null, chunks: [] };
    this.requests.set(node.id, log);
    await answerInto(node, path, {
      partial, log, signal: controller.signal,
      changed: () => {
        this.events.emit("node", node.id);
        this.#save(conversation, SAVE_GAP);
      },
    });
    this.#running.delete(node.id);
    conversation.updated = Date.now();
    this.#save(conversation);
    this.events.emit("node", node.id);
    this.events.emit("running");
    this.events.emit("tree");
  }

  #changed() {
    if (this.conversations.includes(this.current)) this.#save(this.current);
    this.events.emit("tree");
  }

  #save(conversation, gap = 0) {
    if (this.#saving.has(conversation.id)) {
      if (gap > 0) return;
      clearTimeout(this.#saving.get(conversation.id));
    }
    const save = () => {
      this.#saving.delete(conversation.id);
      if (this.conversations.includes(conversation)) storage.saveConversation(conversation);
    };
    this.#saving.set(conversation.id, setTimeout(save, gap));
  }
}

function startSettings() {
  return { ...DEFAULT_SETTINGS, ...(preference("generation") ?? {}) };
}
