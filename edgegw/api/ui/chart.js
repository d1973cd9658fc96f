// One chart: lines over time on a canvas, and a read-out that follows the pointer or the arrow keys. To a screen reader it is
// a slider along time, whose value text is the read-out.

import { h, setAttr, setText } from './dom.js';
import { clock, measured, shortened, visible } from './format.js';

const HEIGHT = 148;
const PAD = { top: 10, right: 10, bottom: 22, left: 52 };
const SECOND = 1000;
const DAY = 86400 * SECOND;
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200].map((s) => s * SECOND);
const DAYS = [1, 2, 7, 14];
const MONTHS = [1, 3, 6, 12, 24, 60, 120];
const MONTH_NAMES = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
// A stretch without points that is so much longer than usual is a hole, not a line.
const HOLE = 12;
const DASHES = [[], [], [], [6, 3], [2, 2], [8, 3, 2, 3]];

/** The chart of some series. `colours()` gives the current theme's: {lines, grid, text, strong, surface}. */
export class Chart {
	#cursorMs = null;
	#width = 0;
	#span = [0, 1];
	#entries = [];
	#drawn = '';

	constructor(colours, ask) {
		this.colours = colours;
		this.ask = ask;
		this.series = [];
		this.windowMs = 0;
		this.canvas = h('canvas', { tabindex: '0', role: 'slider', 'aria-orientation': 'horizontal', 'aria-valuemin': '0', 'aria-valuemax': '100' });
		this.title = h('bdi', { class: 'chart-title' });
		this.when = h('span', { class: 'chart-when' });
		this.legend = h('ul', { class: 'legend' });
		this.el = h('figure', { class: 'chart' },
			h('figcaption', {}, this.title, this.legend, this.when),
			this.canvas);
		this.canvas.addEventListener('pointermove', (event) => this.#point(event.offsetX));
		this.canvas.addEventListener('pointerdown', (event) => this.#point(event.offsetX));
		this.canvas.addEventListener('pointerleave', () => this.#read(null));
		this.canvas.addEventListener('keydown', (event) => this.#key(event));
		this.canvas.addEventListener('blur', () => this.#read(null));
		this.canvas.addEventListener('focus', () => this.#read(this.#cursorMs ?? this.#span[1]));
	}

	/** Show these: `names` are what tells them apart. */
	show(title, series, names, windowMs) {
		setText(this.title, shortened(title));
		setAttr(this.title, 'title', visible(title));
		setAttr(this.canvas, 'aria-label', `${shortened(title)} over time; arrow keys read values`);
		this.series = series;
		this.windowMs = windowMs;
		if (this.#entries.length !== series.length || this.#entries.some((entry, i) => entry.name !== names[i])) {
			this.#entries = series.map((_, i) => {
				const number = h('span', { class: 'legend-value' });
				const swatch = h('span', { class: `swatch swatch-${i % 6}`, 'aria-hidden': 'true' });
				const label = series.length > 1 ? h('bdi', { class: 'legend-name', text: shortened(names[i]), title: visible(names[i]) }) : null;
				return { name: names[i], number, node: h('li', {}, swatch, label, number) };
			});
			this.legend.replaceChildren(...this.#entries.map((entry) => entry.node));
		}
		this.#drawn = '';
	}

	/** Draw what changed since the last time. */
	draw() {
		const width = this.canvas.clientWidth;
		if (width === 0) return;
		const state = `${width} ${devicePixelRatio} ${this.#cursorMs} ${this.series.map((one) => one.total).join()}`;
		if (state === this.#drawn) return;
		this.#drawn = state;
		this.#width = width;
		for (const one of this.series) one.sort();
		const lines = this.series.filter((one) => one.length > 0);
		const last = Math.max(...lines.map((one) => one.times[one.length - 1]));
		let first = Math.min(...lines.map((one) => one.times[0]));
		if (this.windowMs) first = Math.max(first, last - this.windowMs);
		if (last - first < SECOND) first = last - 10 * SECOND;
		this.#span = [first, last];
		const context = this.#prepare(width);
		if (lines.length === 0) return;
		const range = this.#range(lines, first);
		const x = (ms) => PAD.left + ((ms - first) / (last - first)) * (width - PAD.left - PAD.right);
		const y = (number) => PAD.top + ((range.high - number) / (range.high - range.low)) * (HEIGHT - PAD.top - PAD.bottom);
		this.#axes(context, range, x, y);
		this.series.forEach((one, i) => this.#line(context, one, i, first, x, y));
		this.#readOut(context, x, y);
	}

	#prepare(width) {
		const scale = devicePixelRatio || 1;
		if (this.canvas.width !== Math.round(width * scale)) this.canvas.width = Math.round(width * scale);
		if (this.canvas.height !== Math.round(HEIGHT * scale)) this.canvas.height = Math.round(HEIGHT * scale);
		const context = this.canvas.getContext('2d');
		context.setTransform(scale, 0, 0, scale, 0, 0);
		context.clearRect(0, 0, width, HEIGHT);
		return context;
	}

	#range(lines, first) {
		let low = Infinity;
		let high = -Infinity;
		for (const one of lines) {
			for (let i = one.indexAt(first); i < one.length; i += 1) {
				low = Math.min(low, one.values[i]);
				high = Math.max(high, one.values[i]);
			}
		}
		if (low === high) {
			const room = Math.abs(low) * 0.05 || 1;
			low -= room;
			high += room;
		}
		const step = roundStep((high - low) / 5);
		return { low: Math.floor(low / step + 1e-9) * step, high: Math.ceil(high / step - 1e-9) * step, step };
	}

	#axes(context, { low, high, step }, x, y) {
		const { grid, text, font } = this.colours();
		context.font = `11px ${font}`;
		context.fillStyle = text;
		context.strokeStyle = grid;
		context.lineWidth = 1;
		context.setLineDash([]);
		context.textAlign = 'right';
		context.textBaseline = 'middle';
		for (let n = 0; n <= Math.round((high - low) / step); n += 1) {
			const at = Math.round(y(low + n * step)) + 0.5;
			context.beginPath();
			context.moveTo(PAD.left, at);
			context.lineTo(this.#width - PAD.right, at);
			context.stroke();
			context.fillText(axisNumber(low + n * step, step), PAD.left - 8, at);
		}
		context.textAlign = 'center';
		context.textBaseline = 'alphabetic';
		const ticks = timeTicks(...this.#span, Math.max(2, Math.floor((this.#width - PAD.left) / 92)));
		for (const [ms, label] of ticks) {
			const half = context.measureText(label).width / 2;
			const at = Math.min(Math.max(x(ms), PAD.left + half - 8), this.#width - half - 2);
			context.fillText(label, at, HEIGHT - 6);
			context.fillRect(Math.round(x(ms)), HEIGHT - PAD.bottom, 1, 3);
		}
	}

	/** The points of one pixel column become its first, lowest, highest and last. */
	#line(context, one, index, first, x, y) {
		const colour = this.colours().lines[index % 6];
		context.strokeStyle = context.fillStyle = colour;
		context.lineWidth = 1.25;
		context.lineJoin = 'round';
		context.setLineDash(DASHES[index % 6]);
		const from = Math.max(0, one.indexAt(first) - (this.windowMs ? 0 : 1));
		const shown = one.length - from;
		const hole = shown > 8 ? (HOLE * (one.times[one.length - 1] - one.times[from])) / shown : Infinity;
		context.beginPath();
		let column = -1;
		let low = 0;
		let high = 0;
		let end = 0;
		const close = () => {
			if (column < 0) return;
			context.lineTo(column, low);
			context.lineTo(column, high);
			context.lineTo(column, end);
		};
		for (let i = from; i < one.length; i += 1) {
			const at = Math.round(x(one.times[i]) * 2) / 2;
			const level = y(one.values[i]);
			const isHole = i > from && one.times[i] - one.times[i - 1] > hole;
			if (at !== column || isHole) {
				close();
				if (isHole || column < 0) context.moveTo(at, level);
				else context.lineTo(at, level);
				column = at;
				low = high = level;
			}
			low = Math.max(low, level);
			high = Math.min(high, level);
			end = level;
		}
		close();
		context.stroke();
		context.setLineDash([]);
		if (shown > 0 && shown <= 40) {
			for (let i = from; i < one.length; i += 1) dot(context, x(one.times[i]), y(one.values[i]), 2);
		}
	}

	/** The legend tells the values at the cursor, or the last ones. */
	#readOut(context, x, y) {
		const [first, last] = this.#span;
		const found = this.series.map((one) => (this.#cursorMs === null || one.length === 0 ? one.length - 1 : nearest(one, this.#cursorMs)));
		this.#entries.forEach((entry, i) => {
			const one = this.series[i];
			const at = found[i];
			setText(entry.number, at < 0 ? '–' : measured(one.values[at], one.unit));
		});
		const { strong, surface, lines } = this.colours();
		if (this.#cursorMs === null) {
			setText(this.when, '');
		} else {
			const lead = found.findIndex((at) => at >= 0);
			const ms = this.series[lead].times[found[lead]];
			setText(this.when, clock(ms, Date.now()));
			const at = Math.round(x(ms)) + 0.5;
			context.strokeStyle = strong;
			context.globalAlpha = 0.5;
			context.beginPath();
			context.moveTo(at, PAD.top);
			context.lineTo(at, HEIGHT - PAD.bottom);
			context.stroke();
			context.globalAlpha = 1;
		}
		found.forEach((at, i) => {
			if (at < 0) return;
			const one = this.series[i];
			if (one.times[at] < first || one.times[at] > last) return;
			context.fillStyle = surface;
			dot(context, x(one.times[at]), y(one.values[at]), 4.5);
			context.fillStyle = lines[i % 6];
			dot(context, x(one.times[at]), y(one.values[at]), 3);
		});
		const share = ((this.#cursorMs ?? last) - first) / (last - first);
		setAttr(this.canvas, 'aria-valuenow', String(Math.round(Math.min(1, Math.max(0, share)) * 100)));
		if (this.#cursorMs !== null || !this.canvas.hasAttribute('aria-valuetext')) this.#tell(found);
	}

	#tell(found) {
		const words = this.#entries.map((entry) => (this.series.length > 1 ? `${shortened(entry.name)} ` : '') + entry.number.textContent);
		const lead = found.findIndex((at) => at >= 0);
		setAttr(this.canvas, 'aria-valuetext', `${clock(this.series[lead].times[found[lead]], Date.now())}: ${words.join(', ')}`);
	}

	#point(offset) {
		const [first, last] = this.#span;
		const share = (offset - PAD.left) / (this.#width - PAD.left - PAD.right);
		this.#read(first + Math.min(1, Math.max(0, share)) * (last - first));
	}

	#key(event) {
		const [first, last] = this.#span;
		const lead = this.series.find((one) => one.length > 0);
		if (lead === undefined) return;
		const now = this.#cursorMs ?? last;
		const page = Math.max(1, Math.round((lead.length - lead.indexAt(first)) / 20));
		const moves = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -page, PageUp: page };
		let next;
		if (event.key === 'Home') next = first;
		else if (event.key === 'End') next = last;
		else if (event.key in moves) next = lead.times[Math.min(lead.length - 1, Math.max(lead.indexAt(first), nearest(lead, now) + moves[event.key]))];
		else if (event.key === 'Escape') next = null;
		else return;
		event.preventDefault();
		this.#read(next);
	}

	#read(ms) {
		this.#cursorMs = ms;
		this.ask();
	}
}

function dot(context, x, y, radius) {
	context.beginPath();
	context.arc(x, y, radius, 0, 2 * Math.PI);
	context.fill();
}

function nearest(one, ms) {
	const at = one.indexAt(ms);
	if (at === 0) return 0;
	if (at === one.length) return one.length - 1;
	return ms - one.times[at - 1] <= one.times[at] - ms ? at - 1 : at;
}

function roundStep(rough) {
	const power = 10 ** Math.floor(Math.log10(rough));
	const factor = [1, 2, 5, 10].find((one) => one * power >= rough * 0.999) ?? 10;
	return factor * power;
}

function axisNumber(number, step) {
	const size = Math.max(Math.abs(number), step);
	if (size >= 1e6 || size < 1e-3) return number === 0 ? '0' : number.toExponential(Math.min(4, Math.floor(Math.log10(size / step)) + 1)).replace('e+', 'e').replaceAll('-', '−');
	const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
	return number.toLocaleString('en', { minimumFractionDigits: Math.min(digits, 6), maximumFractionDigits: Math.min(digits, 6) }).replace('-', '−');
}

/** [ms, label] of at most about `most` round local times in a span. */
export function timeTicks(first, last, most) {
	const rough = (last - first) / (most + 0.8);
	const step = STEPS.find((one) => one >= rough);
	const ticks = [];
	if (step !== undefined) {
		const offset = new Date(first).getTimezoneOffset() * 60 * SECOND;
		for (let ms = Math.ceil((first - offset) / step) * step + offset; ms <= last; ms += step) {
			const at = new Date(ms);
			const time = clock(ms, ms);
			const isMidnight = at.getHours() === 0 && at.getMinutes() === 0 && at.getSeconds() === 0;
			ticks.push([ms, isMidnight ? `${at.getDate()} ${MONTH_NAMES[at.getMonth()]}` : step < 60 * SECOND ? time : time.slice(0, 5)]);
		}
		return ticks;
	}
	const days = DAYS.find((one) => one * DAY >= rough);
	const months = days ? 0 : MONTHS.find((one) => one * 30.4 * DAY >= rough) ?? 120;
	const at = new Date(first);
	at.setHours(0, 0, 0, 0);
	if (months) at.setFullYear(at.getFullYear(), Math.floor(at.getMonth() / Math.min(months, 12)) * Math.min(months, 12), 1);
	const isOtherYear = new Date(last).getFullYear() !== new Date().getFullYear();
	while (at.getTime() <= last && ticks.length < 100) {
		const month = MONTH_NAMES[at.getMonth()];
		const year = at.getFullYear();
		const label = months >= 12 ? `${year}` : months ? `${month} ${year}` : isOtherYear && ticks.length === 0 ? `${at.getDate()} ${month} ${year}` : `${at.getDate()} ${month}`;
		if (at.getTime() >= first) ticks.push([at.getTime(), label]);
		if (months) at.setMonth(at.getMonth() + months);
		else at.setDate(at.getDate() + days);
	}
	return ticks;
}

