// Questions to the recorder. Gives the JSON of /api/v1, or throws an Error whose message a person can act on.

const GIVE_UP_AFTER_MS = 15000;

/** Ask for a path below /api/v1; parameters that are empty are left out. */
export async function ask(path, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value));
  let answer;
  try {
    answer = await fetch(`/api/v1/${path}?${query}`, {
      cache: "no-store",
      signal: AbortSignal.timeout(GIVE_UP_AFTER_MS),
    });
  } catch {
    throw new Error("The recorder does not answer.");
  }
  if (answer.status === 401) {
    throw new Error("This recorder wants a token: open this page once with ?token=… at the end of its address.");
  }
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(content.detail || `The recorder answered with ${answer.status}.`);
  return content;
}
