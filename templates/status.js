"use strict";
(() => {
	const get = id => document.getElementById(id);

	// What stays the same is left alone, so that it is not announced again.
	function set(object, key, value) {
		if (object[key] !== value) object[key] = value;
	}

	function showText(part, text = "") {
		set(part, "hidden", !text);
		set(part, "textContent", text);
	}

	function showTime(part, iso) {
		set(part, "hidden", !iso);
		if (!iso) return;
		const at = new Date(iso);
		const today = at.toDateString() === new Date().toDateString();
		const time = part.querySelector("time");
		set(time, "dateTime", iso);
		set(time, "textContent", at.toLocaleString(document.documentElement.lang, { dateStyle: today ? undefined : "medium", timeStyle: "short" }));
	}

	// The same three units as the server's: minutes, hours, days.
	function showAge(part, iso) {
		set(part, "hidden", !iso);
		if (!iso) return;
		const minutes = Math.max(1, Math.floor((Date.now() - new Date(iso)) / 60000));
		const [unit, length] = minutes < 60 ? ["minute", 1] : minutes < 1440 ? ["hour", 60] : ["day", 1440];
		const time = part.querySelector("time");
		set(time, "dateTime", iso);
		set(time, "textContent", new Intl.RelativeTimeFormat(document.documentElement.lang, { style: "short" }).format(-Math.floor(minutes / length), unit));
	}

	function showClients(list, clients = []) {
		set(list, "hidden", !clients.length);
		list.replaceChildren(...clients.map(client => {
			const item = document.createElement("li"), name = document.createElement("b"), message = document.createElement("span");
			item.dataset.state = client.state;
			name.textContent = client.name;
			message.textContent = client.message || "";
			name.dir = message.dir = "auto";
			item.append(name, " " + client.label, ...(client.message ? [" – ", message] : []));
			return item;
		}));
	}

	function showAvatar(image, source) {
		set(image, "hidden", !source);
		if (source) set(image, "src", source);
		else image.removeAttribute("src");
	}

	function show(status) {
		set(document.documentElement.dataset, "state", status.state);
		showText(get("label"), status.label);
		showText(get("message"), status.message);
		showText(get("nick"), status.nick);
		showAvatar(get("avatar"), status.avatar);
		showTime(get("since"), status.since);
		showAge(get("active"), status.idle_since || status.last_seen);
		showClients(get("clients"), status.resources);
		showTime(get("asof"), status.as_of);
		const link = get("jid").firstElementChild;
		set(get("jid"), "hidden", !status.jid);
		set(link, "textContent", status.jid || "");
		if (status.jid) set(link, "href", "xmpp:" + encodeURIComponent(status.jid).replace("%40", "@"));
		else link.removeAttribute("href");
		set(document, "title", (status.nick ? status.nick + ": " : "") + status.label + (status.message ? " – " + status.message : ""));
	}

	function localise() {
		const active = get("active");
		if (!active.hidden) showAge(active, active.querySelector("time").dateTime);
		for (const part of [get("since"), get("asof")]) if (!part.hidden) showTime(part, part.querySelector("time").dateTime);
	}

	function listen() {
		const events = new EventSource(location.pathname.replace(/\/$/, "") + "/events" + location.search);
		events.onmessage = event => show(JSON.parse(event.data));
		events.onerror = () => {
			// The browser retries by itself, but not after an answer other than 200.
			if (events.readyState === EventSource.CLOSED) setTimeout(check, 3000 + 4000 * Math.random());
		};
	}

	async function check() {
		const answer = await fetch(location.href, { method: "HEAD" }).catch(() => null);
		if (answer && answer.status === 404) location.reload();
		else listen();
	}

	localise();
	setInterval(localise, 60000); // the day may change
	listen();
})();
