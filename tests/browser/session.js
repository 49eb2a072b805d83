// In the browser: how FreqUI asks a bot, with fetch and WebSocket. The tests call it; it judges nothing.

globalThis.session = {
  base: "",
  access: "",
  messages: [],

  /** {status, body} of one request under /api/v1; the body is null where it is no JSON. */
  async ask(method, path, { body, authorization = `Bearer ${this.access}` } = {}) {
    const response = await fetch(`${this.base}/api/v1${path}`, {
      method,
      headers: {
        Accept: "application/json, text/plain, */*",
        ...(authorization && { Authorization: authorization }),
        ...(body !== undefined && { "Content-Type": "application/json" }),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "include",
    });
    return { status: response.status, body: await response.json().catch(() => null) };
  },

  login(username, password) {
    return this.ask("POST", "/token/login", { body: {}, authorization: `Basic ${btoa(`${username}:${password}`)}` });
  },

  /** "open", or "refused"; what comes then is in `messages`. */
  open(token = this.access) {
    this.messages = [];
    const socket = new WebSocket(`${this.base.replace(/^http/, "ws")}/api/v1/message/ws?token=${token}`);
    socket.onmessage = (event) => this.messages.push(JSON.parse(event.data));
    this.socket = socket;
    return new Promise((resolve) => {
      socket.onopen = () => resolve("open");
      socket.onerror = () => resolve("refused");
    });
  },

  send(message) {
    this.socket.send(JSON.stringify(message));
  },
};
