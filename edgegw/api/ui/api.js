// Requests to the gateway that served this page, with the token where one is needed.

const KEY = 'edgegw-token';
const REQUEST_MS = 15000;

/** The gateway said no, or said nothing. `status` is 0 when there was no answer. */
export class ApiError extends Error {
	constructor(status, problem, hasToken = false) {
		super(problem.detail || problem.title || `status ${status}`);
		this.status = status;
		this.code = problem.code || '';
		this.hint = problem.hint || '';
		// Whether a token is asked for. One that may do other things is not asked for again; nor is a foreign host its fault.
		this.isDenied = status === 401 || (status === 403 && !hasToken && !this.code.startsWith('foreign_'));
	}
}

/** The API. `onDenied(error)` hears of each answer that asks for a token. */
export class Api {
	#token = sessionStorage.getItem(KEY) || '';

	constructor(onDenied) {
		this.onDenied = onDenied;
	}

	get hasToken() {
		return this.#token !== '';
	}

	/** Keep it for this tab; empty forgets it. */
	setToken(token) {
		this.#token = token;
		if (token) sessionStorage.setItem(KEY, token);
		else sessionStorage.removeItem(KEY);
	}

	/** The response, when it is a good one. Throws ApiError. Paths are relative, so the page works below a path of a proxy. */
	async request(path, { method = 'GET', headers = {}, body, signal, quiet = false } = {}) {
		const given = this.#token ? { ...headers, Authorization: `Bearer ${this.#token}` } : headers;
		let response;
		try {
			response = await fetch(new URL(path, document.baseURI), { method, headers: given, body, signal, cache: 'no-store', credentials: 'omit' });
		} catch (error) {
			if (signal?.aborted) throw error;
			throw new ApiError(0, { detail: 'no answer' });
		}
		if (response.ok) return response;
		const error = new ApiError(response.status, await problemOf(response), this.hasToken);
		if (error.isDenied && !quiet) this.onDenied(error);
		throw error;
	}

	/** The JSON of an answer. Throws ApiError. */
	async json(path, options = {}) {
		const limit = new AbortController();
		const end = () => limit.abort();
		const timer = setTimeout(end, REQUEST_MS);
		options.signal?.addEventListener('abort', end, { once: true });
		try {
			return await (await this.request(path, { ...options, signal: limit.signal })).json();
		} finally {
			clearTimeout(timer);
			options.signal?.removeEventListener('abort', end);
		}
	}
}

async function problemOf(response) {
	try {
		return await response.json();
	} catch {
		return { detail: `status ${response.status}` };
	}
}
