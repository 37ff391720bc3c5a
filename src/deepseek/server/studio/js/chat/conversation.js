// A conversation is a tree of messages: editing or regenerating adds a sibling, nothing is overwritten. A pane shows
// the path from the root to its leaf; two panes on one tree are two settings side by side.
//
// {id, title, created, updated, nodes: {id: Node}, roots: [id], panes: [{leaf, settings}]}
// Node: {id, parent, role, content, children: [id], chosen, created}, for questions {files: [{name, text}]}, and for answers
// {reasoning, status, error, finish, model, settings, usage, timing, tokens, calls}

import { checkedAttachments } from "./attachments.js";
import { checkedCalls } from "./tool_calls.js";

const ROLES = new Set(["user", "assistant"]);

export function newId() {
  return crypto.randomUUID ? crypto.randomUUID() : Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(16)).join("-");
}

export function newConversation(settings) {
  const now = Date.now();
  return { id: newId(), title: "", created: now, updated: now, nodes: {}, roots: [], panes: [{ leaf: null, settings: { ...settings } }] };
}

export function addNode(conversation, parent, fields) {
  const node = { id: newId(), parent, children: [], chosen: null, created: Date.now(), ...fields };
  conversation.nodes[node.id] = node;
  if (parent === null) conversation.roots.push(node.id);
  else {
    conversation.nodes[parent].children.push(node.id);
    conversation.nodes[parent].chosen = node.id;
  }
  conversation.updated = Date.now();
  if (!conversation.title && node.role === "user") conversation.title = titleOf(node.content || (node.files?.[0]?.name ?? ""));
  return node;
}

function titleOf(text) {
  const line = text.trim().split("\n")[0];
  return line.length > 60 ? `${line.slice(0, 59)}…` : line;
}

export function pathTo(conversation, leaf) {
  const path = [];
  for (let at = leaf; at; at = conversation.nodes[at].parent) path.push(conversation.nodes[at]);
  return path.reverse();
}

export function siblings(conversation, node) {
  return (node.parent === null ? conversation.roots : conversation.nodes[node.parent].children).map((id) => conversation.nodes[id]);
}

/** The leaf below `node` where the reader was last. */
export function leafUnder(conversation, node) {
  let at = node;
  while (at.children.length) at = conversation.nodes[at.chosen ?? at.children.at(-1)];
  return at.id;
}

/** Shows `node` in `pane`, and remembers the way to it. */
export function choose(conversation, pane, node) {
  for (let at = node; at.parent !== null; at = conversation.nodes[at.parent]) conversation.nodes[at.parent].chosen = at.id;
  pane.leaf = leafUnder(conversation, node);
}

/** Answers that were under way when the page was closed will not go on. */
export function settle(conversation) {
  for (const node of Object.values(conversation.nodes)) if (node.status === "streaming") node.status = "lost";
  return conversation;
}

const STATES = new Set(["done", "stopped", "lost", "edited"]);
const isText = (value) => typeof value === "string";

/** Checks a conversation from outside and copies only what is known; throws Error where it is not a whole tree. */
export function checkedConversation(from) {
  const nodes = {};
  for (const [id, node] of Object.entries(from.nodes ?? {})) {
    if (!ROLES.has(node.role) || !isText(node.content)) throw new Error(`message ${id}`);
    nodes[id] = {
      ...pick(node, ["role", "content", "finish", "model", "settings", "usage"]), ...checkedParts(node),
      ...(node.role === "user" ? { files: checkedAttachments(node.files) } : { calls: checkedCalls(node.calls) }),
      id, parent: node.parent ?? null, children: [], chosen: null, created: Number(node.created) || Date.now(),
    };
  }
  const order = Object.entries(from.nodes ?? {}).flatMap(([, node]) => node.children ?? []);
  const roots = [];
  for (const id of new Set([...(from.roots ?? []), ...order])) {
    if (!Object.hasOwn(nodes, id)) throw new Error(`message ${id}`);
    if (nodes[id].parent === null) roots.push(id);
    else if (Object.hasOwn(nodes, nodes[id].parent)) nodes[nodes[id].parent].children.push(id);
    else throw new Error(`parent of ${id}`);
  }
  const whole = { ...pick(from, ["title", "created", "updated"]), id: newId(), nodes, roots };
  const reached = roots.flatMap((root) => below(whole, root));
  if (reached.length !== Object.keys(nodes).length) throw new Error("messages without a way to them");
  for (const node of Object.values(nodes)) node.chosen = Object.hasOwn(nodes, from.nodes[node.id].chosen) ? from.nodes[node.id].chosen : null;
  whole.title = isText(whole.title) ? whole.title : "";
  whole.created = Number(whole.created) || Date.now();
  whole.updated = Number(whole.updated) || whole.created;
  whole.panes = (from.panes ?? []).slice(0, 2).map((pane) => ({
    leaf: Object.hasOwn(nodes, pane.leaf) ? pane.leaf : null, settings: { ...(pane.settings ?? {}) },
  }));
  if (!whole.panes.length) whole.panes.push({ leaf: roots.length ? leafUnder(whole, nodes[roots.at(-1)]) : null, settings: {} });
  return settle(whole);
}

/** What the page computes with; left out where it is not of the kind it should be. */
function checkedParts({ reasoning, status, timing, tokens }) {
  const isToken = (token) => isText(token?.text) && Array.isArray(token.top) && (token.logprob === null || typeof token.logprob === "number");
  return {
    reasoning: isText(reasoning) ? reasoning : "",
    status: STATES.has(status) ? status : status === "streaming" ? "lost" : "done",
    ...(typeof timing?.tokens === "number" && { timing }),
    ...(Array.isArray(tokens) && tokens.every(isToken) && { tokens }),
  };
}

function below(conversation, id) {
  return [id, ...conversation.nodes[id].children.flatMap((child) => below(conversation, child))];
}

function pick(from, names) {
  return Object.fromEntries(names.filter((name) => from[name] !== undefined).map((name) => [name, from[name]]));
}
