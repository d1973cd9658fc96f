// Publishing a message by hand, and the same as a command: what the newcomer learns here works in a script.

import { byId, setText } from './dom.js';
import { exact } from './format.js';

const JSON_TYPE = 'application/json';

/** The form "Publish". */
export class Publish {
	constructor(api, onSent) {
		this.api = api;
		this.onSent = onSent;
		const form = byId('publish-form');
		form.addEventListener('submit', (event) => {
			event.preventDefault();
			this.#send();
		});
		form.addEventListener('input', () => this.showCommand());
		byId('publish-copy').addEventListener('click', () => this.#copy(byId('publish-command'), byId('publish-result')));
		byId('welcome-copy').addEventListener('click', () => this.#copy(byId('welcome-command'), byId('welcome-result')));
		byId('welcome-send').addEventListener('click', () => this.#send());
		this.showCommand();
	}

	/** The command that does what the form does. */
	showCommand() {
		const { topic, payload, type, isRetained } = this.#fields();
		const parts = ['curl'];
		if (this.api.hasToken) parts.push('-H "Authorization: Bearer $EDGEGW_TOKEN"');
		parts.push(`-H 'Content-Type: ${type}'`);
		if (isRetained) parts.push("-H 'Edgegw-Retain: true'");
		parts.push(`-d ${quoted(payload)}`, new URL(path(topic), document.baseURI).href.replaceAll("'", '%27'));
		for (const id of ['publish-command', 'welcome-command']) setText(byId(id), parts.join(' '));
	}

	#fields() {
		const payload = byId('publish-payload').value;
		return { topic: byId('publish-topic').value, payload, type: isJson(payload) ? JSON_TYPE : 'text/plain', isRetained: byId('publish-retain').checked };
	}

	async #send() {
		const { topic, payload, type, isRetained } = this.#fields();
		const result = byId('publish-result');
		const headers = { 'Content-Type': type };
		if (isRetained) headers['Edgegw-Retain'] = 'true';
		result.className = 'note';
		try {
			const receipt = await this.api.json(path(topic), { method: 'POST', headers, body: payload });
			setText(result, `Stored as ${receipt.stream} ${exact(receipt.seq)}.`);
			this.onSent();
		} catch (error) {
			result.className = 'note bad';
			setText(result, error.hint ? `${error.message} (${error.hint})` : error.message);
		}
	}

	async #copy(command, result) {
		try {
			await navigator.clipboard.writeText(command.textContent);
			setText(result, 'Copied.');
		} catch {
			// No clipboard without TLS, except on loopback: select it, so that one key copies it.
			getSelection().selectAllChildren(command);
			setText(result, 'Selected; copy it with the keyboard.');
		}
	}
}

const path = (topic) => `v1/topics/${topic.split('/').map(encodeURIComponent).join('/')}`;

/** For a shell: nothing in single quotes means anything but their end. */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function isJson(text) {
	try {
		JSON.parse(text);
		return true;
	} catch {
		return false;
	}
}
