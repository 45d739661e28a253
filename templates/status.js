"use strict";
(() => {
	const lang = document.documentElement.lang;
	const people = [...document.querySelectorAll(".person")];

	// Unchanged values are not set again: screen readers would announce them.
	function set(object, key, value) {
		if (object[key] !== value) object[key] = value;
	}

	function showText(part, text = "") {
		set(part, "hidden", !text);
		set(part, "textContent", text);
	}

	// Shows a time as a formatter has it.
	function showTime(part, iso, format) {
		set(part, "hidden", !iso);
		if (!iso) return;
		const time = part.querySelector("time");
		set(time, "dateTime", iso);
		set(time, "textContent", format(new Date(iso)));
	}

	function clock(at) {
		const today = at.toDateString() === new Date().toDateString();
		return at.toLocaleString(lang, { dateStyle: today ? undefined : "medium", timeStyle: "short" });
	}

	// The same three units as the server's: minutes, hours, days.
	function age(at) {
		const minutes = Math.max(1, Math.floor((Date.now() - at) / 60000));
		const [unit, length] = minutes < 60 ? ["minute", 1] : minutes < 1440 ? ["hour", 60] : ["day", 1440];
		return new Intl.RelativeTimeFormat(lang, { style: "short" }).format(-Math.floor(minutes / length), unit);
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

	// Each entry is a text, or a name and the person's own words.
	function showDetails(list, details) {
		details = details.filter(([label]) => label);
		set(list, "hidden", !details.length);
		list.replaceChildren(...details.map(texts => {
			const item = document.createElement("li");
			texts.filter(text => text).forEach((text, i) => {
				const part = document.createElement("span");
				part.dir = "auto";
				part.textContent = text;
				item.append(...(i ? [" – ", part] : [part]));
			});
			return item;
		}));
	}

	function link(part, attribute, target) {
		if (target) set(part, attribute, target);
		else part.removeAttribute(attribute);
	}

	// The icon's color and glyph are those of the page.
	function showIcon(person, state) {
		const icon = document.querySelector("link[rel=icon]"), color = getComputedStyle(person).getPropertyValue("--state").match(/#(\w+)/);
		const glyph = document.getElementById(state).querySelector("path").getAttribute("d");
		if (icon && color) set(icon, "href", icon.getAttribute("href").replace(/%23\w+/, "%23" + color[1]).replace(/ d='[^']*/, " d='" + glyph));
	}

	function show(person, status) {
		const get = name => person.querySelector("." + name);
		set(person.dataset, "state", status.state);
		person.querySelector("use").setAttribute("href", "#" + status.state);
		showText(get("nick"), status.nick);
		set(get("avatar"), "hidden", !status.avatar);
		link(get("avatar"), "src", status.avatar);
		showText(get("label"), status.label);
		showText(get("message"), status.message);
		showDetails(get("details"), [[status.activity_label, status.activity_text], [status.mood_label, status.mood_text], [status.tune && "♫ " + status.tune]]);
		showTime(get("since"), status.since, clock);
		showTime(get("active"), status.idle_since || status.last_seen, age);
		showTime(get("asof"), status.as_of, clock);
		showClients(get("clients"), status.resources);
		set(get("jid"), "hidden", !status.jid);
		set(get("jid").firstElementChild, "textContent", status.jid || "");
		link(get("jid").lastElementChild, "href", status.jid && "xmpp:" + encodeURIComponent(status.jid).replace("%40", "@") + "?message");
		if (people.length > 1) return;
		set(document.documentElement.dataset, "state", status.state);
		showIcon(person, status.state);
		set(document, "title", (status.nick ? status.nick + ": " : "") + status.label + (status.message ? " – " + status.message : ""));
	}

	function localise() {
		for (const [name, format] of [["since", clock], ["active", age], ["asof", clock]])
			for (const part of document.querySelectorAll("." + name)) if (!part.hidden) showTime(part, part.querySelector("time").dateTime, format);
	}

	function listen() {
		const events = new EventSource(location.pathname.replace(/\/$/, "") + "/events" + location.search);
		events.onmessage = event => [].concat(JSON.parse(event.data)).forEach((status, i) => show(people[i], status));
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
