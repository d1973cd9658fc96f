// Rows of the API as messages, and payloads as a person reads them. Pure.
//
// A JSON payload is shown as it was stored, digit for digit: parsing and printing it again would round what a double cannot
// hold. So the text of the payload is cut out of the text of its row.

import { bytes, cut } from './format.js';

// Shown of one payload; the rest is said to be there. 200 rows of it are 6 MiB.
export const SHOWN_CHARS = 16 << 10;
const PREVIEW_CHARS = 240;
const HEX_BYTES = 64;
const DEPTH_MAX = 64;

/** [row, its text] of each message in an answer of rows; gaps are left out. */
export async function rowsOf(response) {
	return splitRows(await response.text()).map((raw) => [JSON.parse(raw), raw]).filter(([row]) => row.gap === undefined);
}

/** The text of each row in the text of a JSON array of rows. */
function splitRows(text) {
	const rows = [];
	let depth = 0;
	let start = -1;
	for (let i = 0; i < text.length; i += 1) {
		const char = text.charCodeAt(i);
		if (char === 0x22) {
			i = stringEnd(text, i);
		} else if (char === 0x7b || char === 0x5b) {
			depth += 1;
			if (depth === 2 && char === 0x7b) start = i;
		} else if (char === 0x7d || char === 0x5d) {
			depth -= 1;
			if (depth === 1 && start >= 0) {
				rows.push(text.slice(start, i + 1));
				start = -1;
			}
		}
	}
	return rows;
}

/** The place of the quote that ends the string that begins at `start`. */
function stringEnd(text, start) {
	for (let at = text.indexOf('"', start + 1); at >= 0; at = text.indexOf('"', at + 1)) {
		let escapes = 0;
		while (text[at - 1 - escapes] === '\\') escapes += 1;
		if (escapes % 2 === 0) return at;
	}
	return text.length;
}

/** What one row shows: {kind: json | text | binary, text, size, isCut, preview}. */
export function shownPayload(row, raw) {
	if (row.payload_b64 !== undefined) return shownBinary(row.payload_b64);
	const isText = typeof row.payload === 'string' && !isJsonType(row.content_type);
	const text = isText ? row.payload : rawPayload(row, raw);
	const head = cut(text, SHOWN_CHARS);
	return {
		kind: isText ? 'text' : 'json',
		text: head,
		size: text.length < 1 << 20 ? new Blob([text]).size : text.length,
		isCut: head.length < text.length,
		preview: cut(text, PREVIEW_CHARS).replace(/\s+/g, ' ').trim(),
	};
}

function isJsonType(type) {
	const kind = type.split(';', 1)[0].trim().toLowerCase();
	return kind === 'application/json' || kind.endsWith('+json');
}

/** In a row nothing stands before the payload but strings and numbers, and quotes in strings are escaped: the first is it. */
function rawPayload(row, raw) {
	const mark = raw.indexOf(',"payload":');
	if (mark < 0) return JSON.stringify(row.payload);
	let end = raw.lastIndexOf('}');
	if (row.consumer !== undefined) end = raw.lastIndexOf(',"consumer":');
	else if (row.deliveries !== undefined) end = raw.lastIndexOf(',"deliveries":');
	return raw.slice(mark + 11, end).trim();
}

function shownBinary(b64) {
	const size = (b64.length / 4) * 3 - (b64.endsWith('==') ? 2 : b64.endsWith('=') ? 1 : 0);
	const head = Uint8Array.from(atob(b64.slice(0, Math.ceil(HEX_BYTES / 3) * 4)), (char) => char.charCodeAt(0)).subarray(0, HEX_BYTES);
	const lines = [];
	for (let at = 0; at < head.length; at += 8) {
		const part = [...head.subarray(at, at + 8)];
		const hex = part.map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
		const ascii = part.map((byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : '·')).join('');
		lines.push(`${at.toString(16).padStart(4, '0')}  ${hex.padEnd(23)}  ${ascii}`);
	}
	const first = [...head.subarray(0, 16)].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
	return { kind: 'binary', text: lines.join('\n'), size, isCut: head.length < size, preview: `${bytes(size)} binary · ${first}` };
}

/** JSON text with line breaks and indents; its tokens stay as they are. What is too deep stays on its line. */
export function indented(text) {
	const parts = [];
	let depth = 0;
	const line = () => parts.push('\n', '  '.repeat(Math.min(depth, DEPTH_MAX)));
	for (let i = 0; i < text.length; i += 1) {
		const char = text[i];
		if (char === '"') {
			const end = stringEnd(text, i);
			parts.push(text.slice(i, end + 1));
			i = end;
		} else if (char === '{' || char === '[') {
			const close = /\s*[}\]]/y;
			close.lastIndex = i + 1;
			const empty = close.exec(text);
			if (empty) {
				parts.push(char, empty[0].trim());
				i = close.lastIndex - 1;
			} else {
				parts.push(char);
				depth += 1;
				line();
			}
		} else if (char === '}' || char === ']') {
			depth -= 1;
			line();
			parts.push(char);
		} else if (char === ',') {
			parts.push(char);
			line();
		} else if (char === ':') parts.push(': ');
		else if (!/\s/.test(char)) parts.push(char);
	}
	return parts.join('');
}
