"use strict";
(() => {
	const form = document.querySelector("form");
	const address = location.pathname.replace(/\/embed$/, "").replace(/^.*\/status\//, "");

	// The page does not contain an address that reveals a hidden JID. The browser knows it.
	function fillIn() {
		const result = document.getElementById("result");
		if ("hidden" in result.dataset) {
			for (const part of result.querySelectorAll("[data-src]")) part.setAttribute("src", part.dataset.src.replace("ID", address.replace(/^.*\//, "")));
			for (const text of result.querySelectorAll("pre")) text.textContent = text.textContent.replaceAll("/status/ID", "/status/" + address);
		}
		for (const button of result.querySelectorAll("button")) {
			const label = button.textContent;
			button.hidden = false;
			button.onclick = async () => {
				await navigator.clipboard.writeText(button.previousElementSibling.textContent);
				button.textContent = button.dataset.copied;
				setTimeout(() => button.textContent = label, 2000);
			};
		}
	}

	let latest = 0;
	async function renew() {
		const turn = ++latest, query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
		const here = location.pathname + "?" + query;
		const answer = await (await fetch(here)).text();
		if (turn !== latest) return; // the form has changed since
		history.replaceState(null, "", here);
		document.getElementById("result").replaceWith(new DOMParser().parseFromString(answer, "text/html").getElementById("result"));
		fillIn();
	}

	form.addEventListener("input", renew);
	form.addEventListener("submit", event => {
		event.preventDefault();
		renew();
	});
	fillIn();
})();
