// Making and changing elements. Text only ever becomes text: nothing here parses markup, and neither may anything else.

/** An element. `props`: class, text, on<event>, or attributes; true = there, false and null = not there. */
export function h(tag, props = {}, ...children) {
	const node = document.createElement(tag);
	for (const [name, value] of Object.entries(props)) {
		if (value === null || value === false || value === undefined) continue;
		if (name === 'class') node.className = value;
		else if (name === 'text') node.textContent = value;
		else if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
		else node.setAttribute(name, value === true ? '' : value);
	}
	node.append(...children.filter((child) => child !== null));
	return node;
}

/** The element of the page with this id. */
export const byId = (id) => document.getElementById(id);

/** Change the text only when it differs: a selection survives, a screen reader is not told twice. */
export function setText(node, text) {
	if (node.textContent !== text) node.textContent = text;
}

/** Likewise an attribute; null takes it away. */
export function setAttr(node, name, value) {
	if (value === null) node.removeAttribute(name);
	else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

/** Make the children of `parent` those of `items`: kept by key, made where new, gone where gone. */
export function keyed(parent, items, keyOf, make, update) {
	const known = new Map([...parent.children].map((node) => [node.dataset.key, node]));
	let place = parent.firstElementChild;
	for (const item of items) {
		const key = keyOf(item);
		let node = known.get(key);
		if (node === undefined) {
			node = make(item);
			node.dataset.key = key;
		}
		known.delete(key);
		update(node, item);
		if (node === place) place = place.nextElementSibling;
		else parent.insertBefore(node, place);
	}
	for (const node of known.values()) node.remove();
}
