// Asking for the token when the gateway wants one.

import { byId, setText } from './dom.js';

/** The dialog. `onToken()` is called when there is a new token. */
export class TokenDialog {
	constructor(api, onToken) {
		this.dialog = byId('token-dialog');
		this.api = api;
		byId('token-form').addEventListener('submit', (event) => {
			event.preventDefault();
			const field = byId('token-field');
			const token = field.value.trim();
			field.value = '';
			// A header holds nothing else.
			if (/^[!-~]+$/.test(token)) this.#use(token, onToken);
			else setText(byId('token-why'), 'That is no token: it has blanks or letters that none has.');
		});
		this.isDeclined = false;
		const decline = () => {
			this.isDeclined = true;
			this.dialog.close();
		};
		this.dialog.addEventListener('cancel', decline);
		byId('token-cancel').addEventListener('click', decline);
		byId('token-open').addEventListener('click', () => this.ask(null));
		byId('token-forget').addEventListener('click', () => this.#use('', onToken));
		byId('token-open').hidden = !api.hasToken;
	}

	#use(token, onToken) {
		this.api.setToken(token);
		this.isDeclined = false;
		this.dialog.close();
		onToken();
	}

	/** Ask; not again when it is open, nor by itself after a no. `error` is null when the person asks for it. */
	ask(error) {
		if (this.dialog.open || (this.isDeclined && error !== null)) return;
		setText(byId('token-why'), error === null ? '' : error.hint ? `${error.message} (${error.hint})` : error.message);
		byId('token-forget').hidden = !this.api.hasToken;
		byId('token-open').hidden = false;
		this.dialog.showModal();
	}
}
