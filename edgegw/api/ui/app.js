// The page, put together. What it holds is bounded where it is kept: series.js, messages.js, sse.js.

import { Api } from './api.js';
import { byId } from './dom.js';
import { Follow } from './follow.js';
import { Frames } from './frames.js';
import { Health } from './health.js';
import { showLedgers } from './ledgers.js';
import { Messages } from './messages.js';
import { Publish } from './publish.js';
import { SeriesStore, isOwn } from './series.js';
import { TokenDialog } from './token.js';
import { Values } from './values.js';

// A gateway that received no more than this, and nothing but its own readings, is new: the page says how to begin.
const NEW_MESSAGES = 1000;

let lastReceived = 0;
let hasDevices = false;
let isSettled = false;
const frames = new Frames();
const store = new SeriesStore();
const api = new Api((error) => dialog.ask(error));
const dialog = new TokenDialog(api, restart);
const values = new Values(api, store, frames);
const messages = new Messages(frames, (filter, stream) => follow.choose(filter, stream));
const publish = new Publish(api, () => health.now());
byId('host').textContent = location.host;
const health = new Health(api, (view) => {
	showLedgers(view);
	const received = Object.values(view.status.streams).reduce((total, stream) => total + stream.received, 0);
	if (received < lastReceived) {
		// Another store, whose numbers begin again: nothing that is here says what of it was seen.
		store.ranges.clear();
		follow.choose(follow.filter, follow.stream);
	}
	lastReceived = received;
	byId('welcome').hidden = hasDevices || received > NEW_MESSAGES;
});

const sink = {
	row(row, raw) {
		hasDevices ||= !isOwn(row.topic);
		store.take(row, raw.length);
		values.touch();
		messages.row(row, raw);
	},
	gap: (gap) => messages.gap(gap),
	state(name, detail, retryMs) {
		messages.state(name, detail, retryMs);
		if (name !== 'live' || isSettled) return;
		isSettled = true;
		store.settle();
	},
	restarted() {
		messages.clear();
		values.reset();
	},
};

const follow = new Follow(api, sink, async (signal) => {
	const status = await api.json('v1/status', { signal, quiet: true });
	return Object.entries(status.streams).filter(([name]) => name !== 'dead-letter' || follow.stream === name).map(([name, stream]) => [name, stream.last]);
});

function restart() {
	publish.showCommand();
	health.start();
	follow.start();
}

// Nobody looks: nothing is asked, read or drawn. Then it goes on where it stood.
document.addEventListener('visibilitychange', () => {
	if (document.hidden) {
		health.stop();
		follow.stop();
		return;
	}
	frames.wake();
	health.start();
	follow.start();
});

if (!document.hidden) restart();
