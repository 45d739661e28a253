// Drives webstatus with xmpp.js: discovery, registration, the contact request, presence, options, leaving.
//
// usage: node client.mjs HOST PORT DOMAIN USER PASSWORD SERVICE
import { webcrypto } from "node:crypto";
import { client, xml } from "@xmpp/client";

globalThis.crypto ??= webcrypto; // which Node.js 18 keeps to itself

const [host, port, domain, username, password, service] = process.argv.slice(2);
const nsInfo = "http://jabber.org/protocol/disco#info", nsItems = "http://jabber.org/protocol/disco#items";
const nsRegister = "jabber:iq:register", nsForm = "jabber:x:data";

const me = client({
  service: `xmpp://${host}:${port}`, domain, resource: "xmppjs",
  credentials: (authenticate) => authenticate({ username, password }, "PLAIN"),
});

const received = []; // presence that nothing has waited for yet
const waiting = []; // for more of it
me.on("stanza", (stanza) => {
  if (!stanza.is("presence")) return;
  received.push(stanza);
  for (const resolve of waiting.splice(0)) resolve();
});

async function presence(from, type) {
  for (;;) {
    const i = received.findIndex((p) => p.attrs.from.split("/")[0] === from && p.attrs.type === type);
    if (i >= 0) return received.splice(i, 1)[0];
    await new Promise((resolve) => waiting.push(resolve));
  }
}

function check(condition, what) {
  if (!condition) throw new Error(String(what));
}

// shown waits until the page and the JSON at an address show something.
async function shown(address, state, text) {
  for (;;) {
    const page = await (await fetch(address)).text();
    const json = await (await fetch(address + ".json")).json();
    if (json.state === state && page.includes(`data-state="${state}"`) && json.message === text && (!text || page.includes(text))) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

// find checks that the server lists the service's domain, and that the service offers registration.
async function find() {
  const items = await me.iqCaller.get(xml("query", nsItems), domain);
  check(items.getChildrenByAttr("jid", service.split("@").pop()).length, `the server does not list the service: ${items}`);
  const info = await me.iqCaller.get(xml("query", nsInfo), service);
  const is = info.getChildrenByAttr("category", "component").some(({ attrs }) => attrs.type === "presence" && attrs.name === "web presence");
  check(is && info.getChildrenByAttr("var", nsRegister).length, `not the service: ${info}`);
}

// submit fills the service's form in and sends it.
async function submit(answers) {
  const form = (await me.iqCaller.get(xml("query", nsRegister), service)).getChild("x", nsForm);
  const fields = form.getChildren("field").map(({ attrs: { var: name }, ...field }) =>
    xml("field", { var: name }, xml("value", {}, answers[name] ?? form.getChildByAttr("var", name).getChildText("value"))));
  await me.iqCaller.set(xml("query", nsRegister, xml("x", { xmlns: nsForm, type: "submit" }, ...fields)), service);
  return (await me.iqCaller.get(xml("query", nsRegister), service)).getChild("x", nsForm).getChildText("instructions").match(/https?:\S+\/status\/\S+/)[0];
}

async function scenario() {
  await me.iqCaller.get(xml("query", "jabber:iq:roster")); // without it the server leaves out what concerns contacts
  await me.send(xml("presence"));
  await find();
  check(!(await me.iqCaller.get(xml("query", nsRegister), service)).getChild("registered"), "registered already");
  const address = await submit({ show_status_msg: "1" });

  await presence(service, "subscribe");
  await me.send(xml("presence", { to: service, type: "subscribed" }));
  await me.send(xml("presence", { to: service, type: "subscribe" }));
  await presence(service, "subscribed");
  await presence(service, undefined);
  await shown(address, "available");

  await me.send(xml("presence", {}, xml("show", {}, "away"), xml("status", {}, "feeding the cat")));
  await shown(address, "away", "feeding the cat");
  check(await submit({ show_status_msg: "0" }) === address, "another address");
  await shown(address, "away", undefined);

  await me.iqCaller.set(xml("query", nsRegister, xml("remove")), service);
  await Promise.all(["unsubscribe", "unsubscribed", "unavailable"].map((type) => presence(service, type)));
  check((await fetch(address)).status === 404, "there is a page after leaving");
}

me.on("online", () => scenario().then(() => console.log("done"), (e) => { console.error(e); process.exitCode = 1; }).finally(() => me.stop()));
me.on("error", (e) => { console.error(e); process.exit(1); });
await me.start();
