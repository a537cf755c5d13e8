// Brings what moves on the page up to date, in place. The proxy makes the words; here nodes are only changed to match them, so
// that nothing jumps, and focus, selection and what was opened stay.
"use strict";
(() => {
	const every = 2000, patience = 10000;
	const live = document.getElementById("live");
	const said = document.getElementById("said");
	const lost = document.getElementById("lost");
	let timer = 0, running = false, since = null;

	const key = (node) => node.nodeType === Node.ELEMENT_NODE ? node.dataset.key : undefined;
	const alike = (a, b) => a !== null && a.nodeName === b.nodeName && key(a) === key(b);

	function become(node, wanted) {
		if (node.nodeType !== Node.ELEMENT_NODE) {
			if (node.nodeValue !== wanted.nodeValue) node.nodeValue = wanted.nodeValue;
			return;
		}
		for (const { name, value } of wanted.attributes) {
			if (node.getAttribute(name) !== value) node.setAttribute(name, value);
		}
		for (const { name } of [...node.attributes]) {
			if (!wanted.hasAttribute(name) && !(name === "open" && node.localName === "details")) node.removeAttribute(name);
		}
		let at = node.firstChild;
		for (const child of wanted.childNodes) {
			let found = at;
			if (key(child) !== undefined) {
				while (found !== null && !alike(found, child)) found = found.nextSibling;
			}
			if (!alike(found, child)) {
				node.insertBefore(document.importNode(child, true), at);
				continue;
			}
			while (at !== found) at = without(at);
			become(found, child);
			at = found.nextSibling;
		}
		while (at !== null) at = without(at);
	}

	function without(node) {
		const next = node.nextSibling;
		node.remove();
		return next;
	}

	// states are what a person who cannot see the page is told of when it changes.
	const states = () => new Map([...live.querySelectorAll("[data-say]")].map((e) => [e.dataset.say, e.textContent]));

	async function poll() {
		if (running || document.hidden) return;
		running = true;
		clearTimeout(timer);
		try {
			// With the origin: the page may have been opened by an address with a password in it, which fetch does not take.
			const answer = await fetch(location.origin + "/live", { cache: "no-store", redirect: "error", signal: AbortSignal.timeout(patience) });
			if (!answer.ok) throw new Error(answer.status === 401 ? "The password is asked for again: load the page anew." : "The proxy answers " + answer.status + ".");
			const wanted = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("live");
			const before = states();
			become(live, wanted);
			const changed = [...states()].filter(([what, state]) => before.get(what) !== state);
			if (changed.length > 0) said.textContent = changed.map(([what, state]) => what + ": " + state).join(". ");
			document.title = live.dataset.title;
			since = null;
			lost.hidden = true;
		} catch (error) {
			since ??= new Date();
			const why = error instanceof TypeError || error.name === "TimeoutError" ? "The proxy does not answer." : error.message;
			const text = why + " These figures are from before " + since.toLocaleTimeString() + ".";
			if (lost.hidden || lost.textContent !== text) lost.textContent = text;
			lost.hidden = false;
		} finally {
			running = false;
			timer = setTimeout(poll, every);
		}
	}

	// What the address says was told: loading the page again should not tell it again.
	if (location.pathname + location.search !== "/") history.replaceState(null, "", "/");
	document.querySelector(".message")?.focus(); // so that it is read out
	document.addEventListener("visibilitychange", poll);
	timer = setTimeout(poll, every);
})();
