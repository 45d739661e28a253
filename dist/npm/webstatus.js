// <xmpp-status src="https://status.example.org/status/ID" look="badge"></xmpp-status> shows an XMPP status and keeps it up to date.
//
// src    the URL of a status page, with its parameters, such as ?parts=message. Several people: /status/ID1,ID2
// look   badge (default), card or line
// label  of a badge: the text before the state (default: the nickname, or XMPP)
// theme  light or dark (default: the system's; a line has the color of the text around it)
// lang   language of the state (default: the browser's)
//
// The element's content is shown until there is a status. The attribute state, and the parts name, label, message, detail, avatar and mark,
// are for the site's style sheet. A Content-Security-Policy needs the server in script-src and connect-src, and data: in img-src for avatars.
(() => {
	"use strict";
	if (customElements.get("xmpp-status")) return;

	// A style sheet made by a script needs no permission in style-src, as an inline style would.
	const style = new CSSStyleSheet();
	style.replaceSync(`
		:host { display: inline-block; max-width: 100%; vertical-align: middle; --none: light-dark(#667182, #97a3b3) }
		:host([look=line]) { display: inline; vertical-align: baseline }
		:host([hidden]) { display: none }
		:host([theme=light]) { color-scheme: light }
		:host([theme=dark]) { color-scheme: dark }
		a { --state: var(--none); color: inherit; text-decoration: none }
		a:focus-visible { outline: 2px solid; outline-offset: 2px }
		[data-state=available], [data-state=chat] { --state: light-dark(#1a7f4b, #46c183) }
		[data-state=away] { --state: light-dark(#a86500, #efb042) }
		[data-state=xa] { --state: light-dark(#a0522d, #dd9468) }
		[data-state=dnd] { --state: light-dark(#c0303a, #f27d84) }
		[part=mark] { flex: none; width: .7em; height: .7em; box-sizing: border-box; border: .12em solid var(--state); border-radius: 50%; background: var(--state) }
		[data-state=unavailable] [part=mark], [data-state=unknown] [part=mark] { background: none }
		:is([part=message], [part=detail]) { overflow-wrap: anywhere }

		.line { margin-inline-end: .4em }
		.line [part=mark] { display: inline-block }
		.line :is([part=name], [part=label])::before { content: " " }
		.line [part=name]::after { content: ":" }
		.line [part=message]::before { content: " – " }
		.line [part=detail]::before { content: " · " }
		.line:hover [part=label] { text-decoration: underline }

		.badge { display: inline-flex; margin: 1px; border-radius: 3px; overflow: hidden; color: #fff; font: 11px/20px Verdana, "DejaVu Sans", sans-serif; white-space: nowrap; color-scheme: light }
		.badge span { padding: 0 6px }
		.badge [part=name] { background: #4a4f57; font-weight: 400 }
		.badge [part=label] { background: var(--state) }

		:host([look=card]:not([theme])) { color-scheme: light dark }
		.card { display: flex; align-items: center; gap: 14px; box-sizing: border-box; width: 320px; max-width: 100%; min-height: 80px; margin: 2px 0; padding: 12px 16px;
			border: 1px solid light-dark(#dde2ea, #2f3845); border-radius: 12px; background: light-dark(#fff, #1c222b); color: light-dark(#1d2430, #eceff4);
			font: 14px/1.35 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
		.card > div { min-width: 0 }
		.card :is([part=name], [part=label], [part=message], [part=detail]) { display: block }
		.card [part=name] { font-size: 16px; overflow-wrap: anywhere }
		.card [part=label] { color: var(--state); font-weight: 600 }
		.card :is([part=message], [part=detail]) { color: light-dark(#5a6473, #a3adbb) }
		.card [part=avatar] { flex: none; width: 52px; height: 52px; border-radius: 50%; object-fit: cover }
		.card [part=mark] { width: 18px; height: 18px; border-width: 3px }
	`);

	// One stream for all elements with the same URL: a browser opens few connections to a server at once.
	const streams = new Map();

	// Calls show with the people at a URL, now and after each change, until the returned function is called.
	function follow(url, show) {
		const stream = streams.get(url) || { listeners: new Set() };
		function open() {
			stream.source = new EventSource(url);
			stream.source.onmessage = event => {
				stream.people = [].concat(JSON.parse(event.data));
				for (const listener of stream.listeners) listener(stream.people);
			};
			// The browser retries by itself, but not after an answer other than 200.
			stream.source.onerror = () => {
				if (stream.source.readyState === EventSource.CLOSED) stream.timer = setTimeout(open, 30000 + 30000 * Math.random());
			};
		}
		stream.listeners.add(show);
		if (stream.people) show(stream.people);
		if (!stream.source) {
			streams.set(url, stream);
			open();
		}
		return () => {
			stream.listeners.delete(show);
			if (stream.listeners.size) return;
			clearTimeout(stream.timer);
			stream.source.close();
			streams.delete(url);
		};
	}

	function create(name, part, text) {
		const element = document.createElement(name);
		if (part) element.setAttribute("part", part);
		if (text) element.textContent = text;
		return element;
	}

	customElements.define("xmpp-status", class extends HTMLElement {
		static observedAttributes = ["src", "look", "label", "lang"];
		#root = this.attachShadow({ mode: "open" });
		#box = create("span");
		#leave;
		#changed;

		constructor() {
			super();
			this.#root.adoptedStyleSheets = [style];
			this.#box.setAttribute("role", "status"); // screen readers announce changes
			this.#box.append(create("slot"));
			this.#root.append(this.#box);
		}

		connectedCallback() { this.#change(); }
		attributeChangedCallback() { this.#change(); }
		disconnectedCallback() { this.#change(); }

		// Attributes change one at a time.
		#change() {
			if (this.#changed) return;
			this.#changed = true;
			queueMicrotask(() => {
				this.#changed = false;
				const leave = this.#leave;
				this.#leave = this.isConnected && this.#follow();
				if (leave) leave(); // after the stream has been taken again, so that it stays open
			});
		}

		#follow() {
			const src = this.getAttribute("src");
			if (!src) return;
			const url = new URL(src, document.baseURI), page = url.href;
			if (!/^https?:$/.test(url.protocol)) return;
			url.pathname = url.pathname.replace(/\/$/, "") + "/events";
			if (this.lang) url.searchParams.set("lang", this.lang);
			return follow(url.href, people => {
				this.setAttribute("state", people[0].state);
				this.#box.replaceChildren(...people.map(person => this.#draw(page, person)));
			});
		}

		#draw(page, person) {
			const link = create("a", "link"), look = this.getAttribute("look");
			link.href = page;
			link.dataset.state = person.state;
			const label = create("span", "label", person.label), message = person.message ? [create("span", "message", person.message)] : [];
			const name = person.nick ? [create("b", "name", person.nick)] : [], mark = create("span", "mark");
			for (const texts of [[person.activity_label, person.activity_text], [person.mood_label, person.mood_text], [person.tune && "♫ " + person.tune]])
				if (texts[0]) message.push(create("span", "detail", texts.filter(Boolean).join(" – ")));
			for (const element of [...name, ...message]) element.dir = "auto";
			if (look === "line") {
				link.className = "line";
				link.append(mark, ...name, label, ...message);
			} else if (look === "card") {
				const text = create("div");
				text.append(...name, label, ...message);
				link.className = "card";
				link.append(mark, text);
				if (/^data:image\//.test(person.avatar)) {
					const avatar = create("img", "avatar");
					avatar.alt = "";
					avatar.onerror = () => avatar.remove(); // forbidden by the site's policy
					avatar.src = person.avatar;
					link.prepend(avatar);
				}
			} else {
				const before = this.getAttribute("label") ?? (person.nick || "XMPP");
				link.className = "badge";
				link.append(...(before ? [create("span", "name", before)] : []), label);
			}
			return link;
		}
	});
})();
