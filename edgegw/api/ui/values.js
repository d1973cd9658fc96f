// The section "Values": which series are plotted, how they share charts, and their history.

import { Chart } from './chart.js';
import { byId, h, keyed, setText } from './dom.js';
import { count, measured, shortened, visible } from './format.js';
import { rowsOf } from './payload.js';
import { isOwn } from './series.js';

// Bounds of the drawing: so many charts, and lines in one.
const CHARTS_MAX = 8;
const AUTO_CHARTS = 4;
const LINES_MAX = 6;
// History: messages of the stream looked through for a topic at first and by each press of "Older", and pages at a time.
const HISTORY_SPAN = 20000;
const OLDER_SPAN = 40000;
const PAGE_ROWS = 1000;
const PAGES_MAX = 40;
const LISTED_MAX = 100;
const DRAW_MS = 250;

/** Plots what `store` holds. */
export class Values {
	#chosen = null;
	#charts = new Map();
	#groups = [];
	#asked = new Set();
	#busy = new Set();
	#colours = null;
	#drawnMs = 0;
	#timer = 0;

	constructor(api, store, frames) {
		this.api = api;
		this.store = store;
		this.frames = frames;
		this.paint = () => this.#paint();
		this.grid = byId('charts');
		this.list = byId('series-list');
		for (const id of ['series-arrange', 'series-window']) byId(id).addEventListener('change', () => this.#regroup());
		byId('series-find').addEventListener('input', () => this.#listed());
		byId('series-auto').addEventListener('click', () => {
			this.#chosen = null;
			this.#regroup();
		});
		byId('series-older').addEventListener('click', () => this.#older());
		byId('series-choose').addEventListener('toggle', () => this.#listed());
		matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
			this.#colours = null;
			this.#regroup();
		});
		new ResizeObserver(() => this.#paint()).observe(this.grid);
	}

	/** Something came in: draw in a while, a few times a second at most. */
	touch() {
		if (this.#timer) return;
		this.#timer = setTimeout(() => {
			this.#timer = 0;
			this.#regroup();
		}, Math.max(0, this.#drawnMs + DRAW_MS - performance.now()));
	}

	/** What is followed changed: charts of what is there stay, history is asked for again. */
	reset() {
		this.#asked.clear();
		this.touch();
	}

	#regroup() {
		this.#drawnMs = performance.now();
		const all = [...this.store.series.values()];
		const arrange = byId('series-arrange').value;
		const windowMs = Number(byId('series-window').value);
		const ranked = this.#chosen === null ? [...all.filter((one) => !isOwn(one.topic)), ...all.filter((one) => isOwn(one.topic))] : all.filter((one) => this.#chosen.has(one.key));
		this.#groups = grouped(ranked, arrange, this.#chosen === null ? AUTO_CHARTS : CHARTS_MAX);
		const plotted = new Set(this.#groups.flatMap((group) => group.series));
		for (const one of all) one.isPlotted = plotted.has(one);
		keyed(this.grid, this.#groups, (group) => group.key, (group) => {
			const chart = new Chart(() => this.#palette(), () => this.frames.ask(this.paint));
			this.#charts.set(group.key, chart);
			return chart.el;
		}, (_, group) => this.#charts.get(group.key).show(group.title, group.series, group.names, windowMs));
		const keys = new Set(this.#groups.map((group) => group.key));
		for (const key of this.#charts.keys()) if (!keys.has(key)) this.#charts.delete(key);
		byId('values-empty').hidden = all.length > 0;
		byId('values-tools').hidden = byId('series-choose').hidden = all.length === 0;
		setText(byId('values-count'), all.length ? `${plotted.size} of ${count(all.length)} series${this.store.untracked ? ' (more are not tracked)' : ''}` : '');
		if (byId('series-choose').open) this.#listed();
		for (const one of plotted) this.#remember(one.topic);
		this.frames.ask(this.paint);
	}

	#paint() {
		for (const chart of this.#charts.values()) chart.draw();
	}

	#palette() {
		if (this.#colours === null) {
			const style = getComputedStyle(document.documentElement);
			const read = (name) => style.getPropertyValue(name).trim();
			this.#colours = {
				lines: [0, 1, 2, 3, 4, 5].map((i) => read(`--line-${i}`)),
				grid: read('--hairline'), text: read('--muted'), font: getComputedStyle(document.body).fontFamily, strong: read('--text'), surface: read('--surface'),
			};
		}
		return this.#colours;
	}

	// --- choosing ---

	#listed() {
		const wanted = byId('series-find').value.toLowerCase();
		const all = [...this.store.series.values()].filter((one) => nameOf(one).toLowerCase().includes(wanted)).sort((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1));
		const plotted = new Set(this.#groups.flatMap((group) => group.series));
		keyed(this.list, all.slice(0, LISTED_MAX), (one) => one.key, (one) => {
			const box = h('input', { type: 'checkbox', onchange: () => this.#toggle(one.key, box.checked) });
			const name = shortened(nameOf(one));
			return h('li', {}, h('label', {}, box, h('bdi', { class: 'series-name', text: name, title: visible(nameOf(one)) }), h('span', { class: 'series-last' })));
		}, (node, one) => {
			node.querySelector('input').checked = plotted.has(one);
			setText(node.querySelector('.series-last'), measured(one.last, one.unit));
		});
		setText(byId('series-note'), all.length > LISTED_MAX ? `${count(all.length - LISTED_MAX)} more; narrow the search` : all.length === 0 ? 'No series has this in its name.' : '');
	}

	#toggle(key, isOn) {
		this.#chosen ??= new Set(this.#groups.flatMap((group) => group.series.map((one) => one.key)));
		if (isOn) this.#chosen.add(key);
		else this.#chosen.delete(key);
		this.#regroup();
	}

	// --- history ---

	#remember(topic) {
		if (this.#asked.has(topic)) return;
		this.#asked.add(topic);
		this.#backfill(topic, HISTORY_SPAN);
	}

	async #older() {
		const button = byId('series-older');
		button.disabled = true;
		const topics = new Set(this.#groups.flatMap((group) => group.series.map((one) => one.topic)));
		const found = await Promise.all([...topics].map((topic) => this.#backfill(topic, OLDER_SPAN)));
		const isEnd = [...topics].every((topic) => this.store.ranges.get(topic)?.low <= 1);
		setText(byId('series-note-older'), isEnd ? 'All that is stored is here.' : found.some(Boolean) ? '' : 'None among those; again looks further back.');
		button.disabled = false;
	}

	/** Read what is stored before the oldest message of the topic that is here; how many came. */
	async #backfill(topic, span) {
		const range = this.store.ranges.get(topic);
		if (range === undefined || this.#busy.has(topic)) return 0;
		this.#busy.add(topic);
		const end = range.low;
		const after = Math.max(0, end - 1 - span);
		let path = `v1/messages?${new URLSearchParams({ stream: range.stream, topic, after, limit: PAGE_ROWS })}`;
		let came = 0;
		try {
			for (let page = 0; path !== null && page < PAGES_MAX; page += 1) {
				const response = await this.api.request(path, { quiet: true });
				for (const [row, raw] of await rowsOf(response)) {
					if (row.seq >= end) {
						path = null;
						break;
					}
					this.store.add(row, raw.length);
					came += 1;
				}
				const next = path && /<\/?([^>]*)>; *rel="next"/.exec(response.headers.get('Link') || '');
				path = next ? next[1] : null;
				this.touch();
			}
			// All of that was looked through, whether or not it held any.
			range.low = Math.min(range.low, after + 1);
		} catch {
			this.#asked.delete(topic);
		}
		this.#busy.delete(topic);
		return came;
	}
}

const nameOf = (one) => (one.field ? `${one.topic} · ${one.field}` : one.topic);
const lastLevel = (topic) => topic.slice(topic.lastIndexOf('/') + 1);

/** Series into charts, in their order: {key, title, series, names}. */
function grouped(ranked, arrange, most) {
	const groups = new Map();
	for (const one of ranked) {
		const quantity = `${lastLevel(one.topic)}\u0000${one.field}\u0000${one.unit}`;
		let key = arrange === 'one' ? one.key : arrange === 'all' ? 'all' : quantity;
		for (let part = 2; groups.get(key)?.series.length >= LINES_MAX; part += 1) key = `${key}\u0000${part}`;
		if (!groups.has(key)) {
			if (groups.size >= most) continue;
			groups.set(key, { key, series: [] });
		}
		groups.get(key).series.push(one);
	}
	for (const group of groups.values()) {
		const [first] = group.series;
		const isSame = group.series.every((one) => one.field === first.field && lastLevel(one.topic) === lastLevel(first.topic));
		if (group.series.length === 1) group.title = nameOf(first);
		else group.title = isSame ? [lastLevel(first.topic), first.field].filter(Boolean).join(' · ') : 'Together';
		// What all have in common stands in the title.
		group.names = group.series.map((one) => (group.series.length > 1 && isSame ? one.topic.slice(0, -lastLevel(one.topic).length - 1) || one.topic : nameOf(one)));
	}
	return [...groups.values()];
}
