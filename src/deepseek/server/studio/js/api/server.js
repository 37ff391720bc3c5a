// Requests to the server that served this page, under whatever path it lives.

const ROOT = new URL("../../../", import.meta.url); // this file is <root>/studio/js/api/server.js
const KEY = "deepseek.api-key";

/** The server answered, and said no. `status` 401 means that an API key is wanted. */
export class ApiError extends Error {
  constructor(status, message, parameter = null) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.parameter = parameter;
  }
}

/** The server was not reached, or went away before it had finished. */
export class ConnectionLost extends Error {
  constructor() {
    super("connection lost");
    this.name = "ConnectionLost";
  }
}

export function apiUrl(path) {
  return new URL(path, ROOT).href;
}

/** Kept for this tab only: a key in longer storage would outlive the reader's attention. */
export function apiKey() {
  return sessionStorage.getItem(KEY) ?? "";
}

export function setApiKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

async function refusal(response) {
  const body = await response.json().catch(() => null);
  const error = body?.error ?? body;
  return new ApiError(response.status, error?.message ?? `${response.status} ${response.statusText}`.trim(), error?.param);
}

/** A `fetch` that answers only with success; throws ApiError, ConnectionLost or, when `signal` ends it, AbortError. */
export async function request(path, { method = "GET", body, signal } = {}) {
  const headers = {};
  if (apiKey()) headers.Authorization = `Bearer ${apiKey()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(apiUrl(path), {
      method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body), cache: "no-store",
    });
  } catch (error) {
    throw error.name === "AbortError" ? error : new ConnectionLost();
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

export async function getJson(path, options) {
  return (await request(path, options)).json();
}
