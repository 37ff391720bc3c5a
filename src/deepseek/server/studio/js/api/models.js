// Which models the server has, asked again now and then: it may have been restarted with another.

import { Emitter } from "../emitter.js";
import { getJson } from "./server.js";

const changed = new Emitter();
let models = [];
let failure = null;

export function knownModels() {
  return models;
}

export function modelNamed(name) {
  return models.find((model) => model.id === name) ?? models[0] ?? null;
}

/** null while the server answers; else the error of the last try. */
export function linkFailure() {
  return failure;
}

export async function refreshModels() {
  const before = JSON.stringify([models, failure?.status, failure?.name]);
  try {
    models = (await getJson("v1/models")).data ?? [];
    failure = null;
  } catch (error) {
    failure = error;
  }
  if (JSON.stringify([models, failure?.status, failure?.name]) !== before) changed.emit("models");
}

export function onModels(listener) {
  return changed.on("models", listener);
}
