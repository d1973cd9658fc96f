// Numeric values over time, from whatever messages hold: every number in a JSON payload is a point of the series (topic, path
// of the field). Pure.
//
// Bounds: 300 series; 512 points each, 4,096 while it is plotted; 16 numbers of a message, 4 levels deep. A series that is
// full halves itself: of each four points the smallest and the largest stay, so that no peak is lost, and what is old grows
// coarser while what is new is exact.

const SERIES_MAX = 300;
const POINTS_MAX = 4096;
const IDLE_POINTS_MAX = 512;
const LEAVES_MAX = 16;
const DEPTH_MAX = 4;
const ENTRIES_MAX = 64;
const ROW_CHARS_MAX = 64 << 10;
const NUMBER = /^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$/;

// Units that names of fields end in, by their last word.
const UNITS = Object.fromEntries((
	'celsius:°C degc:°C fahrenheit:°F percent:% pct:% pa:Pa hpa:hPa kpa:kPa bar:bar mbar:mbar volt:V volts:V v:V mv:mV amps:A a:A ma:mA '
	+ 'watts:W w:W kw:kW wh:Wh kwh:kWh hz:Hz rpm:rpm lux:lx ppm:ppm ppb:ppb db:dB dbm:dBm s:s seconds:s ms:ms bytes:B c:°C mm:mm m:m'
).split(' ').map((pair) => pair.split(':')));

/** Whether the gateway itself publishes there: such topics give way to those of devices. */
export const isOwn = (topic) => /^(host|\$SYS)\//.test(topic);

/** One field of one topic over time. */
export class Series {
	constructor(topic, field, unit) {
		this.topic = topic;
		this.field = field;
		this.unit = unit;
		this.key = `${topic}\u0000${field}`;
		this.times = new Float64Array(64);
		this.values = new Float64Array(64);
		this.length = 0;
		this.total = 0;
		this.lastMs = -Infinity;
		this.last = NaN;
		this.arrived = '';
		this.isPlotted = false;
		this.isSorted = true;
	}

	add(ms, number) {
		const most = this.isPlotted ? POINTS_MAX : IDLE_POINTS_MAX;
		if (this.length >= most) this.#halve();
		if (this.length === this.times.length) this.#grow();
		this.times[this.length] = ms;
		this.values[this.length] = number;
		this.length += 1;
		this.total += 1;
		if (ms >= this.lastMs) {
			this.lastMs = ms;
			this.last = number;
		} else this.isSorted = false;
	}

	#grow() {
		for (const name of ['times', 'values']) {
			const wider = new Float64Array(this[name].length * 2);
			wider.set(this[name]);
			this[name] = wider;
		}
	}

	/** Points in the order of time; history comes after what is live. */
	sort() {
		if (this.isSorted) return;
		const order = Array.from({ length: this.length }, (_, i) => i).sort((a, b) => this.times[a] - this.times[b]);
		this.times.set(order.map((i) => this.times[i]));
		const values = this.values.slice(0, this.length);
		order.forEach((from, to) => { this.values[to] = values[from]; });
		this.isSorted = true;
	}

	#halve() {
		this.sort();
		let kept = 0;
		for (let at = 0; at < this.length; at += 4) {
			const end = Math.min(at + 4, this.length);
			let low = at;
			let high = at;
			for (let i = at + 1; i < end; i += 1) {
				if (this.values[i] < this.values[low]) low = i;
				if (this.values[i] >= this.values[high]) high = i;
			}
			for (const i of low === high ? [low] : low < high ? [low, high] : [high, low]) {
				this.times[kept] = this.times[i];
				this.values[kept] = this.values[i];
				kept += 1;
			}
		}
		this.length = kept;
	}

	/** The first point at or after `ms`. */
	indexAt(ms) {
		let low = 0;
		let high = this.length;
		while (low < high) {
			const middle = (low + high) >> 1;
			if (this.times[middle] < ms) low = middle + 1;
			else high = middle;
		}
		return low;
	}
}

/** All series that were seen. */
export class SeriesStore {
	series = new Map();
	/** Topic → which of its messages are here: {stream, low, high}, sequence numbers. */
	ranges = new Map();
	untracked = 0;

	/** Likewise, but leave out what was taken before: following anew begins with stored messages. */
	take(row, rowChars) {
		const range = this.ranges.get(row.topic);
		if (range?.stream === row.stream && row.seq >= range.low && row.seq <= range.high) return;
		if (!this.add(row, rowChars)) return;
		if (range?.stream !== row.stream) this.ranges.set(row.topic, { stream: row.stream, low: row.seq, high: row.seq });
		else {
			range.low = Math.min(range.low, row.seq);
			range.high = Math.max(range.high, row.seq);
		}
	}

	/** What is stored is here: what came last goes first, and what is new will follow. */
	settle() {
		this.series = new Map([...this.series].sort(([, a], [, b]) => (a.arrived > b.arrived ? -1 : a.arrived < b.arrived ? 1 : 0)));
	}

	/** Take the numbers of a row that is known to be new here; whether it had any. */
	add(row, rowChars) {
		if (rowChars > ROW_CHARS_MAX || row.payload === undefined) return false;
		const leaves = leavesOf(row.payload);
		const ms = leaves.length === 0 ? NaN : Date.parse(row.source_time || row.time);
		if (Number.isNaN(ms)) return false;
		let isTaken = false;
		for (const [field, number, unit] of leaves) {
			const key = `${row.topic}\u0000${field}`;
			let series = this.series.get(key);
			if (series === undefined) {
				if (this.series.size >= SERIES_MAX) {
					this.untracked += 1;
					continue;
				}
				series = new Series(row.topic, field, unit || unitOf(field || row.topic));
				this.series.set(key, series);
			}
			series.add(ms, number);
			series.arrived = row.time;
			isTaken = true;
		}
		return isTaken;
	}
}

function unitOf(name) {
	const words = name.toLowerCase().split(/[^a-z0-9]+/);
	return (words.length > 1 || words[0].length > 1) && Object.hasOwn(UNITS, words.at(-1)) ? UNITS[words.at(-1)] : '';
}

/** [path, number, unit] of each finite number in a payload, bounded. */
export function leavesOf(payload) {
	const leaves = [];
	if (typeof payload === 'string') {
		if (payload.length < 40 && NUMBER.test(payload)) leaves.push(['', Number(payload), '']);
		return leaves;
	}
	collect(payload, '', 0, '', leaves);
	return leaves;
}

function collect(value, path, depth, unit, leaves) {
	if (leaves.length >= LEAVES_MAX) return;
	if (typeof value === 'number') {
		if (Number.isFinite(value)) leaves.push([path, value, unit]);
	} else if (value !== null && typeof value === 'object' && depth < DEPTH_MAX) {
		const own = typeof value.unit === 'string' ? value.unit.slice(0, 12) : '';
		let entries = 0;
		for (const name in value) {
			entries += 1;
			if (entries > ENTRIES_MAX) return;
			collect(value[name], path ? `${path}.${name}` : name, depth + 1, own, leaves);
		}
	}
}
