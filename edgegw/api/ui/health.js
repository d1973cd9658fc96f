// The state of the gateway, asked every two seconds: header, key figures and conditions. What was known stays while it does not
// answer.

import { byId, h, keyed, setAttr, setText } from './dom.js';
import { age, bytes, count, rate, visible } from './format.js';
import { Backoff, rest } from './frames.js';

const POLL_MS = 2000;
// Rates over this many answers: one commit more or less in two seconds is no news.
const ANSWERS = 3;

/** Asks for /v1/status while the page is looked at. `onStatus(view)` gets each answer, with rates. */
export class Health {
	#run = null;
	#past = [];
	#backoff = new Backoff(1000, 30000);
	#wake = null;
	status = null;

	constructor(api, onStatus) {
		this.api = api;
		this.onStatus = onStatus;
		byId('retry').addEventListener('click', () => this.now());
	}

	start() {
		this.stop();
		const run = (this.#run = new AbortController());
		this.#past = [];
		this.#keep(run.signal);
	}

	stop() {
		this.#run?.abort();
		this.#run = null;
	}

	/** Ask at once. */
	now() {
		this.#backoff.reset();
		this.#wake?.abort();
	}

	async #keep(signal) {
		while (!signal.aborted) {
			let wait = POLL_MS;
			try {
				const status = await this.api.json('v1/status', { signal });
				this.#backoff.reset();
				this.#answered(status);
			} catch (error) {
				if (signal.aborted) return;
				wait = error.isDenied ? 30000 : this.#backoff.take();
				this.#missed(error, wait);
			}
			this.#wake = new AbortController();
			const stop = () => this.#wake.abort();
			signal.addEventListener('abort', stop, { once: true });
			await rest(wait, this.#wake.signal);
			signal.removeEventListener('abort', stop);
		}
	}

	#answered(status) {
		const now = { atMs: performance.now(), status };
		const last = this.#past.at(-1);
		if (last && (last.status.pid !== status.pid || status.uptime_s < last.status.uptime_s)) this.#past = [];
		this.#past.push(now);
		if (this.#past.length > ANSWERS) this.#past.shift();
		const [then] = this.#past;
		const seconds = (now.atMs - then.atMs) / 1000;
		const per = (kind, name, field) => {
			const before = then.status[kind][name];
			return seconds > 0 && before ? Math.max(0, status[kind][name][field] - before[field]) / seconds : null;
		};
		this.status = status;
		const raised = status.conditions.filter((one) => one.status === 'raised');
		const isReady = !raised.some((one) => one.required);
		this.#connection(isReady ? (raised.length ? 'warning' : 'ready') : 'down', isReady ? (raised.length ? 'Ready, with warnings' : 'Ready') : 'Not ready', false);
		setText(byId('version'), status.version);
		setText(byId('uptime'), `up ${age(status.uptime_s)}`);
		showConditions(status.conditions);
		showFigures(status, per);
		showUpdate(status.update);
		this.onStatus({ status, per });
	}

	#missed(error, wait) {
		const seconds = Math.max(1, Math.round(wait / 1000));
		const words = error.status === 0 ? 'No answer' : error.isDenied ? 'Token needed' : `${error.message}`;
		this.#past = [];
		this.#connection('lost', `${words}, again in ${seconds} s`, true);
	}

	#connection(state, words, canRetry) {
		document.body.dataset.connection = state;
		setAttr(byId('state'), 'data-state', state);
		// A live region: it must speak when the state changes, not at each attempt.
		setText(byId('state-words'), words);
		const spoken = state === 'lost' ? 'The gateway does not answer' : words;
		setText(byId('spoken'), spoken);
		byId('retry').hidden = !canRetry;
	}
}

function sum(values, field) {
	return Object.values(values).reduce((total, one) => total + one[field], 0);
}

function showFigures(status, per) {
	const { streams, consumers } = status;
	const names = Object.keys(streams);
	const rates = names.map((name) => per('streams', name, 'received'));
	setText(byId('figure-rate'), rates.includes(null) ? '–' : rate(rates.reduce((a, b) => a + b, 0)));
	setText(byId('figure-stored'), count(sum(streams, 'rows')));
	setText(byId('figure-bytes'), bytes(sum(streams, 'bytes')));
	const pending = sum(consumers, 'pending');
	setText(byId('figure-pending'), count(pending));
	const lost = Object.values(consumers).reduce((total, one) => total + Object.values(one.lost).reduce((a, b) => a + b, 0), 0);
	setText(byId('figure-lost'), count(lost));
	byId('figure-lost').classList.toggle('bad', lost > 0);
	setText(byId('figure-received'), count(sum(streams, 'received')));
}

function showConditions(conditions) {
	const raised = conditions.filter((one) => one.status === 'raised').sort((a, b) => (a.severity === b.severity ? 0 : a.severity === 'error' ? -1 : 1));
	const good = conditions.filter((one) => one.status !== 'raised');
	const make = () => h('li', {}, h('span', { class: 'mark', 'aria-hidden': 'true' }), h('div', {},
		h('p', {}, h('strong', { class: 'condition-name' }), h('span', { class: 'condition-kind' }), h('time', { class: 'since' })),
		h('p', { class: 'condition-what' }), h('p', { class: 'condition-hint' })));
	const update = (node, one) => {
		node.className = `condition condition-${one.status === 'raised' ? one.severity : 'good'}`;
		const part = (name) => node.querySelector(name);
		setText(part('.condition-name'), visible(one.name));
		setText(part('.condition-kind'), one.status === 'raised' ? (one.required ? 'needed to be ready' : one.severity) : '');
		setText(part('.condition-what'), visible(one.what || one.text));
		setText(part('.condition-hint'), visible(one.hint));
		const since = part('.since');
		setAttr(since, 'datetime', one.since);
		setAttr(since, 'title', new Date(one.since).toLocaleString());
		setText(since, `for ${age((Date.now() - Date.parse(one.since)) / 1000)}`);
	};
	const list = byId('conditions-raised');
	keyed(list, raised, (one) => one.name, make, update);
	list.hidden = raised.length === 0;
	keyed(byId('conditions-good'), good, (one) => one.name, make, update);
	setText(byId('conditions-summary'), raised.length === 0 ? `All ${good.length} conditions are good` : `${good.length} of ${conditions.length} are good`);
	byId('conditions').classList.toggle('is-raised', raised.length > 0);
	byId('conditions').hidden = false;
}

/** A place for the state of an update: shown when there is one. */
function showUpdate(update) {
	byId('update').hidden = !update;
	if (update) setText(byId('update-state'), visible(update.state ?? String(update)));
}
