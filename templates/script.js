"use strict";
(() => {
	const script = document.currentScript;

	// Elements have data-webstatus, the key to show, such as "label"; data-webstatus-person, a number from 1, if the script's address
	// names several people; data-webstatus-id, a part of that address, if the page has several scripts.
	function show(all) {
		for (const element of document.querySelectorAll("[data-webstatus]")) {
			const { webstatus: part, webstatusPerson: person = 1, webstatusId: id } = element.dataset;
			const status = all[person - 1];
			if (!status || id && !script.src.includes(id)) continue;
			const value = part === "resources" ? (status.resources || []).map(r => r.name + ": " + r.label).join(", ") : status[part] || "";
			element.dataset.webstatusState = status.state;
			if (element instanceof HTMLImageElement) part === "avatar" && value ? element.src = value : element.removeAttribute("src");
			else if (element instanceof HTMLAnchorElement && part === "jid" && value) {
				element.href = "xmpp:" + encodeURIComponent(value).replace("%40", "@");
				element.textContent = value;
			} else element.textContent = value;
		}
	}

	function begin() {
		show(STATUS);
		if (!script || !window.EventSource) return;
		const address = new URL(script.src);
		address.pathname = address.pathname.replace(/\.js$/, "/events");
		// Where the site's Content-Security-Policy forbids the connection, the status stays as it was at first.
		new EventSource(address).onmessage = event => show([].concat(JSON.parse(event.data)));
	}

	if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
	else begin();
})();
