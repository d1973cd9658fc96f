// The section "Messages": what is followed, the newest first.
//
// Bounds: 200 rows, 16 KiB of each payload; between two drawings the newest 8 are kept (40 while few come) and the rest are
// counted. While a message is open the list stands still, so that what is read does not run away.

import { byId, h, setText } from './dom.js';
import { age, bytes, clock, count, cut, date, exact, rate, visible, visibleLines } from './format.js';
import { indented, shownPayload } from './payload.js';

const ROWS_MAX = 200;
const BATCH_MAX = 8;
// Until so many a second each one is shown as it comes; beyond, four batches a second are as much as an eye follows.
const FAST = 40;
const FAST_PAUSE_MS = 250;
const TOPIC_CHARS = 400;
const TOPICS_MAX = 50;

/** The list and its controls. `follow` is what it steers. */
export class Messages {
	#waiting = [];
	#isHistory = false;
	#open = 0;
	#isPaused = false;
	#heldCount = 0;
	#second = { came: 0, shown: 0 };
	#perSecond = 0;
	#skipped = 0;
	#drawnMs = 0;
	#topics = new Set();
	#retry = { atMs: 0 };

	constructor(frames, onChoice) {
		this.frames = frames;
		this.list = byId('messages-list');
		this.paint = () => this.#paint();
		byId('follow').addEventListener('submit', (event) => {
			event.preventDefault();
			onChoice(byId('follow-filter').value.trim() || '#', byId('follow-stream').value);
		});
		byId('follow-stream').addEventListener('change', () => byId('follow').requestSubmit());
		byId('follow-pause').addEventListener('click', () => this.#pause(!this.#isPaused));
		this.list.addEventListener('click', (event) => {
			const topic = event.target.closest('[data-follow]')?.dataset.follow;
			if (topic === undefined) return;
			byId('follow-filter').value = topic;
			byId('follow').requestSubmit();
		});
		setInterval(() => this.#count(), 1000);
	}

	/** A message. */
	row(row, raw) {
		this.#second.came += 1;
		if (this.#topics.size < TOPICS_MAX && !this.#topics.has(row.topic)) this.#suggest(row.topic);
		this.#keep({ row, raw });
	}

	/** Messages that are gone. */
	gap(gap) {
		this.#keep({ gap });
	}

	#keep(entry) {
		if (this.#isHeld) {
			this.#heldCount += 1;
			if (this.#heldCount % 10 === 1 || this.#heldCount < 10) this.frames.ask(this.paint);
			return;
		}
		// History comes all at once, and is shown whole: the list is long enough for it.
		this.#waiting.push(entry);
		if (this.#waiting.length > (this.#isHistory ? ROWS_MAX : this.#perSecond > FAST ? BATCH_MAX : FAST)) this.#waiting.shift();
		this.frames.ask(this.paint);
	}

	/** How the connection is: live, connecting, waiting, refused. */
	state(name, detail, retryMs = 0) {
		this.#isHistory = name === 'connecting';
		this.#retry = { name, detail, atMs: performance.now() + retryMs };
		this.#say();
	}

	clear() {
		this.#waiting = [];
		this.#heldCount = 0;
		this.#open = 0;
		this.list.replaceChildren();
		this.#showEmpty();
		this.#say();
	}

	get #isHeld() {
		return this.#isPaused || this.#open > 0;
	}

	#pause(isPaused) {
		this.#isPaused = isPaused;
		const button = byId('follow-pause');
		button.setAttribute('aria-pressed', String(isPaused));
		if (!this.#isHeld) this.#heldCount = 0;
		this.#say();
	}

	#suggest(topic) {
		this.#topics.add(topic);
		if (topic.length <= 200) byId('topics').append(h('option', { value: topic }));
	}

	#count() {
		this.#perSecond = this.#second.came;
		this.#skipped = this.#isHeld ? 0 : Math.max(0, this.#second.came - this.#second.shown);
		this.#second = { came: 0, shown: 0 };
		if (!document.hidden) this.#say();
	}

	/** One quiet line; it changes once a second at most and is no live region. */
	#say() {
		const { name, detail, atMs } = this.#retry;
		const line = byId('messages-state');
		line.dataset.state = this.#isHeld ? 'held' : name;
		const held = this.#heldCount > 0 ? ` · ${count(this.#heldCount)} new` : '';
		if (name === 'refused') setText(line, `Refused: ${detail}`);
		else if (name === 'waiting') setText(line, `${detail ? `${detail}; ` : 'Disconnected; '}again in ${age(Math.max(0, Math.ceil((atMs - performance.now()) / 1000)))}`);
		else if (this.#isPaused) setText(line, `Paused${held}`);
		else if (this.#open > 0) setText(line, `Held while one is open${held}`);
		else if (name !== 'live') setText(line, 'Connecting …');
		else setText(line, this.#skipped > 2 ? `Live · ${count(this.#skipped)} more per second, sampled` : this.#perSecond > 0 ? `Live · ${rate(this.#perSecond)}/s` : 'Live');
	}

	// --- drawing ---

	#paint() {
		if (this.#isHeld) {
			this.#say();
			return;
		}
		const nowMs = performance.now();
		if (this.#perSecond > FAST && nowMs - this.#drawnMs < FAST_PAUSE_MS) {
			this.frames.ask(this.paint);
			return;
		}
		this.#drawnMs = nowMs;
		const batch = this.#waiting;
		this.#waiting = [];
		this.#second.shown += batch.length;
		const made = document.createDocumentFragment();
		for (const entry of batch.reverse()) made.append(entry.gap ? gapNode(entry.gap) : this.#node(entry));
		this.list.prepend(made);
		while (this.list.childElementCount > ROWS_MAX) this.list.lastElementChild.remove();
		this.#showEmpty();
	}

	#showEmpty() {
		this.list.hidden = this.list.childElementCount === 0;
		byId('messages-empty').hidden = !this.list.hidden;
	}

	#node({ row, raw }) {
		const payload = shownPayload(row, raw);
		const topic = visible(cut(row.topic, TOPIC_CHARS));
		const kept = { ...row, payload: undefined, payload_b64: undefined };
		const node = h('details', { class: 'message' },
			h('summary', {},
				h('time', { text: clock(Date.parse(row.time), Date.now()), datetime: row.time }),
				h('bdi', { class: 'topic', text: topic }),
				h('bdi', { class: `preview preview-${payload.kind}`, text: visible(payload.preview) || '(empty)' })));
		node.addEventListener('toggle', () => {
			if (!node.isConnected) return;
			this.#open += node.open ? 1 : -1;
			if (node.open && node.childElementCount === 1) node.append(detailNode(kept, payload));
			if (!this.#isHeld) this.#heldCount = 0;
			this.#say();
		});
		return h('li', {}, node);
	}
}

function gapNode(gap) {
	const what = gap.count === 1 ? '1 message' : `${count(gap.count)} messages`;
	return h('li', { class: 'gap', text: `Gap: ${what} gone (${gap.stream ? `${gap.stream} ` : ''}${exact(gap.first)}–${exact(gap.last)}, ${gap.reason})` });
}

function detailNode(row, payload) {
	const facts = h('dl', { class: 'facts' });
	const fact = (name, text) => facts.append(h('div', {}, h('dt', { text: name }), h('dd', {}, h('bdi', { text }))));
	fact('Message', `${row.stream} ${exact(row.seq)}`);
	fact('Arrived', moment(row.time));
	if (row.source_time) fact('Measured', moment(row.source_time));
	fact('Type', visible(row.content_type));
	fact('Size', bytes(payload.size));
	if (row.consumer) fact('Dead letter', `of ${row.consumer}, ${row.deliveries} deliveries: ${visible(row.reason)}`);
	const text = payload.kind === 'json' && !payload.isCut ? indented(payload.text) : payload.text;
	const note = payload.isCut ? h('p', { class: 'note', text: payload.kind === 'binary' ? `The first 64 of ${bytes(payload.size)}.` : `The beginning of ${bytes(payload.size)}.` }) : null;
	return h('div', { class: 'detail' },
		h('pre', { text: visibleLines(text), dir: 'auto', tabindex: '0', role: 'region', 'aria-label': 'Payload' }),
		note, facts,
		h('p', {}, h('button', { type: 'button', class: 'quiet', text: 'Follow only this topic', 'data-follow': row.topic })));
}

function moment(time) {
	const at = new Date(time);
	return Number.isNaN(at.getTime()) ? visible(time) : `${date(at)} ${clock(at.getTime(), at.getTime())}.${String(at.getMilliseconds()).padStart(3, '0')}`;
}
