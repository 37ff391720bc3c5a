// Conversations in the browser's IndexedDB, or, where that is forbidden, in memory until the page closes.

const NAME = "deepseek-studio";
const STORE = "conversations";
const memory = new Map();
let database = null;

function asPromise(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** False when nothing will outlive the page. */
export async function openStorage() {
  try {
    const opening = indexedDB.open(NAME, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore(STORE, { keyPath: "id" });
    database = await asPromise(opening);
    return true;
  } catch {
    return false;
  }
}

function store(mode) {
  return database.transaction(STORE, mode).objectStore(STORE);
}

export async function allConversations() {
  return database ? asPromise(store("readonly").getAll()) : [...memory.values()];
}

export async function saveConversation(conversation) {
  if (database) await asPromise(store("readwrite").put(structuredClone(conversation)));
  else memory.set(conversation.id, conversation);
}

export async function deleteConversation(id) {
  if (database) await asPromise(store("readwrite").delete(id));
  else memory.delete(id);
}
