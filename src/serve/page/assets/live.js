// Shows when there are newer values, by the stream of the server. Without it, requests them less and less often.

const FIRST_WAIT = 2_000;
const LONGEST_WAIT = 60_000;

/**
 * Follows the stream. `onNews` is called when there are newer values, and without a stream before each attempt to connect;
 * it returns a promise of whether the server answered. `onState` is called with an empty text while the page is live, and
 * otherwise with why it is not.
 */
export function follow(onNews, onState) {
  let failures = 0;
  let answered = false; // whether the server did at the last attempt

  function connect() {
    const stream = new EventSource("/api/stream");
    stream.addEventListener("open", () => {
      failures = 0;
      onState("");
      onNews();
    });
    stream.addEventListener("snapshot", onNews);
    stream.addEventListener("error", () => {
      // By itself the browser would try every few seconds forever, or never again if the stream was refused.
      stream.close();
      const wait = Math.min(FIRST_WAIT * 2 ** failures, LONGEST_WAIT) * (0.75 + Math.random() / 2);
      failures += 1;
      const next = new Date(Date.now() + wait).toLocaleTimeString([], { hour12: false });
      const answers = failures > 1 && answered;
      const why = answers ? "the server refuses live updates, perhaps because too many pages are open" : "no connection to lagwise";
      onState(`${why}; next try at ${next}`);
      setTimeout(attempt, wait);
    });
  }

  async function attempt() {
    if (document.hidden) await new Promise((seen) => document.addEventListener("visibilitychange", seen, { once: true }));
    answered = await onNews();
    connect();
  }

  connect();
}
