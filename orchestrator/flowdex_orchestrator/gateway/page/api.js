// The gateway's HTTP API: JSON in, JSON out, errors as the gateway words them.

const ROOT = new URL("../", import.meta.url);  // the page works behind a prefix too

const KEY = "flowdex-api-key";

/** The API key of this tab: kept as long as the tab is open, and sent with every call. */
export const apiKey = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: value => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

/** Raised on `window` when the gateway refuses a call for want of a key; `detail` is what it said. */
export const KEY_WANTED = "flowdex-key-wanted";

export class ApiError extends Error {
  /** `status` is 0 where the gateway was not reached. */
  constructor(message, { status = 0, title = "", requestId = "" } = {}) {
    super(message);
    this.status = status;
    this.title = title;
    this.requestId = requestId;
  }
}

async function call(method, path, body, { signal, headers = {}, asText = false } = {}) {
  const options = { method, signal, headers: { accept: "application/json", ...headers } };
  if (apiKey.get()) options.headers.authorization = `Bearer ${apiKey.get()}`;
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["content-type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(new URL(path.replace(/^\//, ""), ROOT), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The gateway does not answer. Is the flow running?", { title: "Not reached" });
  }
  const text = await response.text();
  let content = null;
  try {
    content = text ? JSON.parse(text) : null;
  } catch {
    content = null;
  }
  if (!response.ok) {
    // Our own routes answer problem documents; those of other contracts {error}, {error: {message}} or {message}.
    const said = content?.detail ?? content?.error?.message ?? content?.error ?? content?.message ?? content?.description;
    if (response.status === 401) dispatchEvent(new CustomEvent(KEY_WANTED, { detail: String(said ?? "") }));
    throw new ApiError(typeof said === "string" ? said : `${response.status} ${response.statusText}`, {
      status: response.status,
      title: content?.title ?? "",
      requestId: content?.request_id ?? response.headers.get("x-request-id") ?? "",
    });
  }
  if (asText) return text;
  if (content === null && text) throw new ApiError(`${path} did not answer with JSON`, { status: response.status });
  return content;
}

/** `api.get(path, { signal, headers, asText })`, `api.post(path, body, ...)`, `api.delete(path, body, ...)`: promises of JSON, or of text. */
export const api = {
  get: (path, options) => call("GET", path, undefined, options),
  post: (path, body, options) => call("POST", path, body, options),
  delete: (path, body, options) => call("DELETE", path, body, options),
};
