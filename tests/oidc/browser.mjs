// A browser of a few lines, for tests that have no need of a real one: follows redirects, keeps cookies, sends the
// first form of a page.

/** Opens an address; `pick` says which button of a form to press, by its value. */
export class Browser {
  #cookies = new Map();

  async open(address, init = {}) {
    let url = new URL(address);
    for (let hops = 0; hops < 20; hops += 1) {
      const cookie = [...this.#cookies].map(([name, value]) => `${name}=${value}`).join('; ');
      const response = await fetch(url, { ...init, redirect: 'manual', headers: { ...init.headers, cookie } });
      for (const text of response.headers.getSetCookie()) {
        const [name, value] = text.split(';')[0].split(/=(.*)/s);
        if (value) this.#cookies.set(name, value);
        else this.#cookies.delete(name);
      }
      const next = response.headers.get('location');
      if (!next || response.status < 300 || response.status >= 400) {
        return { url, status: response.status, html: await response.text() };
      }
      url = new URL(next, url);
      if (!init.follow?.(url) && init.follow) return { url, status: response.status, html: '' };
      init = { follow: init.follow };
    }
    throw new Error(`too many redirects at ${url}`);
  }

  /** Sends the form of a page with these values beside its hidden ones. */
  submit(page, values = {}, more = {}) {
    const form = /<form([^>]*)>/.exec(page.html);
    if (!form) throw new Error(`no form at ${page.url}: ${page.html}`);
    const attribute = (tag, name) => new RegExp(`${name}="([^"]*)"`).exec(tag)?.[1];
    const hidden = [...page.html.matchAll(/<input[^>]*>/g)]
      .map(([tag]) => [attribute(tag, 'name'), attribute(tag, 'value') ?? ''])
      .filter(([name]) => name);
    const body = new URLSearchParams({ ...Object.fromEntries(hidden), ...values });
    const address = new URL(attribute(form[1], 'action') ?? page.url, page.url);
    const headers = { 'content-type': 'application/x-www-form-urlencoded' };
    return this.open(address, { method: 'POST', body, headers, ...more });
  }
}

/** Does what a person does with the address that a device shows: confirm the code, say who they are. */
export async function approveDevice(verificationUriComplete, user) {
  const browser = new Browser();
  let page = await browser.open(verificationUriComplete);
  for (let steps = 0; steps < 5 && !page.html.includes('You have logged in'); steps += 1) {
    page = await browser.submit(page, page.html.includes('Who are you?') ? { user } : {});
  }
  if (!page.html.includes('You have logged in')) throw new Error(`not logged in: ${page.html}`);
}
