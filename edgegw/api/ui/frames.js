// When the page is drawn. Whoever has something to draw asks; all of it is done together in one animation frame, at most ten
// times a second, and not at all while nobody looks.

const PAUSE_MS = 100;

/** Calls each registered painter that asked, batched. */
export class Frames {
	#dirty = new Set();
	#lastMs = 0;
	#isDue = false;

	/** Draw this soon. */
	ask(painter) {
		this.#dirty.add(painter);
		this.#plan();
	}

	#plan() {
		if (this.#isDue || document.hidden) return;
		this.#isDue = true;
		const wait = Math.max(0, this.#lastMs + PAUSE_MS - performance.now());
		setTimeout(() => requestAnimationFrame(() => this.#draw()), wait);
	}

	#draw() {
		this.#isDue = false;
		this.#lastMs = performance.now();
		const painters = [...this.#dirty];
		this.#dirty.clear();
		for (const painter of painters) painter();
	}

	/** The page is looked at again. */
	wake() {
		this.#isDue = false;
		if (this.#dirty.size > 0) this.#plan();
	}
}

/** Let input and drawing have their turn before work goes on. */
export const breathe = () => new Promise((resume) => setTimeout(resume));

/** Waits that double up to a cap, half of each by chance: pages do not come back all at once. */
export class Backoff {
	constructor(firstMs, capMs) {
		this.firstMs = firstMs;
		this.capMs = capMs;
		this.reset();
	}

	reset() {
		this.nextMs = this.firstMs;
	}

	/** The next wait, in ms. */
	take() {
		const wait = this.nextMs * (0.5 + Math.random() / 2);
		this.nextMs = Math.min(this.capMs, this.nextMs * 2);
		return wait;
	}
}

/** Wait; ends early when the signal aborts. */
export function rest(ms, signal) {
	return new Promise((resume) => {
		const timer = setTimeout(resume, ms);
		signal?.addEventListener('abort', () => { clearTimeout(timer); resume(); }, { once: true });
	});
}
