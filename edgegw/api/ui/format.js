// Numbers, sizes, times and hostile text as a person reads them. Pure: no page, no clock of its own.

const COUNT = new Intl.NumberFormat('en');
const COMPACT = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
const SIZES = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** A whole number: exact up to seven digits, then compact. */
export function count(number) {
	return Math.abs(number) < 1e7 ? COUNT.format(number) : COMPACT.format(number);
}

/** A whole number, exact. */
export const exact = (number) => COUNT.format(number);

/** Messages per second. */
export function rate(perSecond) {
	if (perSecond === null || !Number.isFinite(perSecond)) return '–';
	if (perSecond === 0) return '0';
	if (perSecond < 0.1) return '< 0.1';
	return perSecond < 10 ? perSecond.toFixed(1) : count(Math.round(perSecond));
}

/** Bytes in the largest unit that leaves a number of at least 1. */
export function bytes(number) {
	let unit = 0;
	let value = number;
	while (value >= 1023.5 && unit < SIZES.length - 1) {
		value /= 1024;
		unit += 1;
	}
	const digits = unit === 0 || value >= 99.95 ? 0 : 1;
	return `${value.toFixed(digits)} ${SIZES[unit]}`;
}

/** A stretch of time in its two largest units. */
export function age(seconds) {
	if (seconds === null) return '–';
	const steps = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
	let left = Math.max(0, Math.floor(seconds));
	const words = [];
	for (const [size, unit] of steps) {
		const whole = Math.floor(left / size);
		if (whole > 0) words.push(`${COUNT.format(whole)} ${unit}`);
		else if (words.length) break;
		left -= whole * size;
		if (words.length === 2) break;
	}
	return words.join(' ') || '0 s';
}

const two = (number) => String(number).padStart(2, '0');

/** The local time of day; with the date when it is not today's. */
export function clock(ms, nowMs) {
	const at = new Date(ms);
	if (Number.isNaN(at.getTime())) return '–';
	const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
	return at.toDateString() === new Date(nowMs).toDateString() ? time : `${date(at)} ${time}`;
}

/** Year, month and day of a Date, local. */
export const date = (at) => `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;

/** A measured value: seven digits are what a sensor and a reader can use. */
export function measured(number, unit) {
	const size = Math.abs(number);
	let text = Number.isInteger(number) ? COUNT.format(number) : String(Number(number.toPrecision(7)));
	if (size !== 0 && (size >= 1e9 || size < 1e-4)) text = number.toExponential(3).replace('e+', 'e');
	return `${text.replaceAll('-', '−')}${unit ? ` ${unit}` : ''}`;
}

// Control characters, and those that are invisible or turn the direction of what follows: shown by their number, so that a
// topic cannot look like another one.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;
const code = (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`;

/** Text on one line with everything unseen made visible. */
export function visible(text) {
	return text.replace(UNSEEN, (char) => (char === '\n' ? '↵' : char === '\t' ? '⇥' : code(char)));
}

/** Text on many lines, likewise. */
export function visibleLines(text) {
	return text.replace(UNSEEN, (char) => (char === '\n' || char === '\t' ? char : code(char)));
}

/** A name from outside, on one line and not too long. */
export const shortened = (text) => visible(cut(text, 120));

/** At most `most` UTF-16 units, never half a character. */
export function cut(text, most) {
	if (text.length <= most) return text;
	const last = text.charCodeAt(most - 1);
	return text.slice(0, last >= 0xd800 && last <= 0xdbff ? most - 1 : most);
}
