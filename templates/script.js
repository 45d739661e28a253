"use strict";
(() => {
	const script = document.currentScript;

	// An element says with data-webstatus which part it wants, such as "label"; of whom with data-webstatus-person, such as "2",
	// where several are asked for; and of which script with data-webstatus-id, a part of the script's address.
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
		// A site whose Content-Security-Policy lets no events in shows the status as it was when the page was opened.
		new EventSource(address).onmessage = event => show([].concat(JSON.parse(event.data)));
	}

	if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
	else begin();
})();
