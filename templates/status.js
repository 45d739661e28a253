"use strict";
(() => {
	const get = id => document.getElementById(id);

	function showTime(part, iso) {
		const time = part.querySelector("time");
		part.hidden = !iso;
		if (!iso) return;
		const at = new Date(iso);
		const today = at.toDateString() === new Date().toDateString();
		time.dateTime = iso;
		time.textContent = at.toLocaleString([], today ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" });
	}

	function showText(part, text) {
		part.hidden = !text;
		if (part.textContent !== text) part.textContent = text;
	}

	function show(status) {
		document.documentElement.dataset.state = status.state;
		showText(get("label"), status.label);
		showText(get("message"), status.message || "");
		showTime(get("since"), status.since);
		showTime(get("asof"), status.as_of);
		const link = get("jid").firstElementChild;
		get("jid").hidden = !status.jid;
		link.textContent = status.jid || "";
		if (status.jid) link.href = "xmpp:" + status.jid.split("/").map(encodeURIComponent).join("/").replaceAll("%40", "@");
		else link.removeAttribute("href");
		document.title = status.label + (status.message ? " – " + status.message : "");
	}

	function listen() {
		const events = new EventSource(location.pathname.replace(/\/$/, "") + "/events" + location.search);
		events.onmessage = event => show(JSON.parse(event.data));
		events.onerror = () => {
			// The browser retries by itself, but not after an answer other than 200.
			if (events.readyState === EventSource.CLOSED) setTimeout(check, 5000);
		};
	}

	async function check() {
		const answer = await fetch(location.href, { method: "HEAD" }).catch(() => null);
		if (answer && answer.status === 404) location.reload();
		else listen();
	}

	for (const id of ["since", "asof"]) showTime(get(id), get(id).querySelector("time").dateTime);
	listen();
})();
