// What the JavaScript drivers share. Each check prints a JSON line, so that one that fails does not hide the others.
export const { BASE_URL, MODEL, API_KEY } = process.env;
export const API_URL = `${BASE_URL}/v1`;

export async function check(name, run) {
  let error = '';
  try {
    await run();
  } catch (caught) {
    console.error(caught);
    error = String(caught).slice(0, 500) || 'failed';
  }
  console.log(JSON.stringify({ check: name, error }));
}

export function assert(holds, message) {
  if (!holds) throw new Error(message);
}
