// Server-Sent Events from pieces of text (WHATWG HTML, section 9.2.6), incrementally. Pure.
//
// The pieces of a line are joined once, when it ends: a message of a megabyte costs its size and not its square. What is longer than EVENT_CHARS_MAX is dropped: 1 MiB of payload, each byte escaped, fits.

const EVENT_CHARS_MAX = 8 << 20;

/** `push(text)` gives the events that are complete with it: {type, data, id}. `id` is null where none was sent. */
export class EventParser {
	#pieces = [];
	#length = 0;
	#data = [];
	#type = '';
	#id = null;
	#dropped = false;
	#afterCr = false;

	push(text) {
		const events = [];
		let start = 0;
		let cr = text.indexOf('\r');
		if (this.#afterCr && text.length > 0) {
			if (text[0] === '\n') start = 1;
			this.#afterCr = false;
		}
		while (start < text.length) {
			if (cr >= 0 && cr < start) cr = text.indexOf('\r', start);
			const lf = text.indexOf('\n', start);
			const end = cr < 0 ? lf : lf < 0 ? cr : Math.min(lf, cr);
			if (end < 0) {
				this.#keep(text.slice(start));
				break;
			}
			this.#keep(text.slice(start, end));
			this.#line(this.#pieces.length === 1 ? this.#pieces[0] : this.#pieces.join(''), events);
			this.#pieces = [];
			this.#length = 0;
			start = end + 1;
			if (text[end] === '\r') {
				if (start === text.length) this.#afterCr = true;
				else if (text[start] === '\n') start += 1;
			}
		}
		return events;
	}

	#keep(piece) {
		this.#length += piece.length;
		if (this.#length > EVENT_CHARS_MAX) {
			this.#pieces = [];
			this.#dropped = true;
		} else this.#pieces.push(piece);
	}

	#line(line, events) {
		if (line === '' && !this.#dropped) {
			if (this.#data.length > 0) events.push({ type: this.#type || 'message', data: this.#data.join('\n'), id: this.#id });
			this.#data = [];
			this.#type = '';
			this.#id = null;
			return;
		}
		if (this.#dropped) {
			this.#dropped = false;
			return;
		}
		const colon = line.indexOf(':');
		if (colon === 0) return;
		const field = colon < 0 ? line : line.slice(0, colon);
		const from = line[colon + 1] === ' ' ? colon + 2 : colon + 1;
		const value = colon < 0 ? '' : line.slice(from);
		if (field === 'data') this.#data.push(value);
		else if (field === 'event') this.#type = value;
		else if (field === 'id') this.#id = value;
	}
}
