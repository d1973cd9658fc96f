// The tables of streams and consumers: both ledgers, with the rates that follow from two answers.

import { byId, h, keyed, setAttr, setText } from './dom.js';
import { age, bytes, count, exact, rate, visible } from './format.js';

const LINK = 'link.';
const DEAD = 'dead-letter';
// A share of the bound from which a bar warns.
const NEARLY_FULL = 0.9;

/** Show `view` = {status, per} of the last answer. */
export function showLedgers({ status, per }) {
	const streams = Object.entries(status.streams).sort(([a], [b]) => (a === DEAD) - (b === DEAD));
	keyed(byId('streams-rows'), streams, ([name]) => name, streamRow, (row, [name, stream]) => {
		const share = stream.bytes_max ? Math.min(1, stream.bytes / stream.bytes_max) : 0;
		setBar(row, share, `${name}: ${bytes(stream.bytes)} of ${bytes(stream.bytes_max)}`);
		cell(row, 'size', `${bytes(stream.bytes)} of ${bytes(stream.bytes_max)}`);
		number(row, 'rows', stream.rows);
		cell(row, 'oldest', age(stream.oldest_age_s));
		cell(row, 'rate', rate(per('streams', name, 'received')));
		cell(row, 'removed', reasons(stream.removed));
		setAttr(row.querySelector('[data-part=name]'), 'title', `${stream.policy}; ${stream.first === null ? 'empty' : `${exact(stream.first)} to ${exact(stream.last)}`}`);
	});
	showStreamChoice(streams.map(([name]) => name));

	const consumers = Object.entries(status.consumers).sort(([a], [b]) => b.startsWith(LINK) - a.startsWith(LINK));
	keyed(byId('consumers-rows'), consumers, ([name]) => name, consumerRow, (row, [name, consumer]) => {
		cell(row, 'filter', visible(`${consumer.filter} in ${consumer.stream}`));
		showLink(row, status.links?.[name.slice(LINK.length)]);
		number(row, 'lag', consumer.lag);
		number(row, 'pending', consumer.pending);
		cell(row, 'rate', rate(per('consumers', name, 'acked')));
		number(row, 'dead', consumer.dead_lettered);
		cell(row, 'lost', reasons(consumer.lost));
		row.querySelector('[data-part=lost]').classList.toggle('bad', Object.values(consumer.lost).some((lost) => lost > 0));
	});
	byId('consumers-table').hidden = consumers.length === 0;
	byId('consumers-empty').hidden = consumers.length > 0;
}

function showStreamChoice(names) {
	const select = byId('follow-stream');
	keyed(select, ['', ...names], (name) => name || 'all', (name) => h('option', { value: name, text: name || 'all' }), () => {});
}

const td = (part, label, props = {}) => h('td', { role: 'cell', 'data-part': part, 'data-label': label, ...props });

function streamRow([name]) {
	return h('tr', { role: 'row' },
		h('th', { role: 'rowheader', scope: 'row', 'data-part': 'name', text: name }),
		h('td', { role: 'cell', 'data-label': 'Size', class: 'wide' },
			h('div', { class: 'bar', role: 'meter', 'aria-valuemin': '0', 'aria-valuemax': '100' }, h('span')),
			h('span', { 'data-part': 'size' })),
		td('rows', 'Messages'), td('oldest', 'Oldest'), td('rate', 'Per second'), td('removed', 'Removed', { class: 'words' }));
}

function consumerRow([name]) {
	const isLink = name.startsWith(LINK);
	return h('tr', { role: 'row' },
		h('th', { role: 'rowheader', scope: 'row' },
			isLink ? h('span', { class: 'chip', text: 'link' }) : null,
			h('span', { text: isLink ? name.slice(LINK.length) : name }),
			h('bdi', { class: 'under', 'data-part': 'filter' }),
			isLink ? h('bdi', { class: 'under', 'data-part': 'link' }) : null),
		td('lag', 'Lag'), td('pending', 'Pending'), td('rate', 'Acked per second'), td('dead', 'Dead letters'), td('lost', 'Lost', { class: 'words' }));
}

/** Where a link sends to, and since when it cannot. */
function showLink(row, link) {
	const part = row.querySelector('[data-part=link]');
	if (!part || !link) return;
	part.classList.toggle('bad', link.gone_s > 0);
	setText(part, visible(link.gone_s > 0 ? `${link.url} gone for ${age(link.gone_s)}: ${link.last_error}` : `to ${link.url}`));
}

function cell(row, part, text) {
	setText(row.querySelector(`[data-part=${part}]`), text);
}

function number(row, part, value) {
	cell(row, part, count(value));
	setAttr(row.querySelector(`[data-part=${part}]`), 'title', value >= 1e7 ? exact(value) : null);
}

/** "age 12 · bytes 3"; a dash where nothing was. */
function reasons(counts) {
	const words = Object.entries(counts).filter(([, lost]) => lost > 0).map(([reason, lost]) => `${reason} ${count(lost)}`);
	return words.join(' · ') || '0';
}

function setBar(row, share, label) {
	const bar = row.querySelector('.bar');
	const percent = Math.round(share * 100);
	setAttr(bar, 'aria-valuenow', String(percent));
	setAttr(bar, 'aria-label', label);
	bar.classList.toggle('is-full', share >= NEARLY_FULL);
	// A stream that holds anything shows a sliver.
	bar.firstElementChild.style.width = share > 0 ? `${Math.max(2, share * 100)}%` : '0';
}
