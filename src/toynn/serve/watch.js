"use strict";
// Asks the server every two seconds for the figures of the run, and shows them. Every text is set with textContent.

const SECONDS = 2;
const QUIET = 120; // seconds without an event after which the page says so
// Each row: a title, the names of one or two curves, the note on them, and which of them have dots.
const VALIDATION = ["dots: validation", [false, true]];
const REWARDS = "blue: chosen, orange: rejected";
const CHARTS = [
  ["Loss, nats per token", ["loss", "validation"], ...VALIDATION],
  ["Learning rate", ["learning_rate"]],
  ["Gradient norm before clipping", ["gradient_norm"]],
  ["Tokens per second", ["tokens_per_second"]],
];
const CHARTS_OF_PAIRS = [
  ["Loss, mean of a pair", ["loss", "validation"], ...VALIDATION],
  ["Reward margin", ["reward_margin", "validation_reward_margin"], ...VALIDATION],
  ["Reward accuracy (share of pairs with a margin above 0)", ["reward_accuracy", "validation_reward_accuracy"], ...VALIDATION],
  ["Rewards in training", ["reward_chosen", "reward_rejected"], REWARDS, [false, false]],
  ["Rewards in validation", ["validation_reward_chosen", "validation_reward_rejected"], REWARDS, [true, true]],
  ...CHARTS.slice(1),
];
const byId = (id) => document.getElementById(id);

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function drawn(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const number = (value, digits) =>
  value === null || value === undefined ? "–" : value.toLocaleString("en", { maximumFractionDigits: digits });

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const minutes = Math.round(seconds / 60);
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// A chart of one or two curves of points [step, value]. dots: for each curve, whether it has dots.
function chart(title, curves, note, dots) {
  const width = 480, height = 220, left = 56, right = 8, top = 8, bottom = 24;
  const points = curves.flat();
  const figure = element("figure");
  figure.append(element("figcaption", note && curves[1].length ? `${title}; ${note}` : title));
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  svg.append(drawn("title", {}, title));
  figure.append(svg);
  if (!points.length) return figure;
  const xs = points.map((one) => one[0]), ys = points.map((one) => one[1]);
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const x = (value) => left + ((value - x0) / (x1 - x0 || 1)) * (width - left - right);
  const y = (value) => height - bottom - ((value - y0) / (y1 - y0 || 1)) * (height - top - bottom);
  for (let i = 0; i <= 4; i++) {
    const value = y0 + ((y1 - y0) * i) / 4;
    svg.append(drawn("line", { x1: left, x2: width - right, y1: y(value), y2: y(value), class: "grid" }));
    svg.append(drawn("text", { x: left - 4, y: y(value) + 4, "text-anchor": "end" }, Number(value.toPrecision(3))));
  }
  svg.append(drawn("text", { x: left, y: height - 6 }, `step ${x0}`));
  svg.append(drawn("text", { x: width - right, y: height - 6, "text-anchor": "end" }, x1));
  curves.forEach((curve, i) => {
    const kind = i ? "other" : "";
    if (!curve.length) return;
    svg.append(drawn("polyline", { points: curve.map((one) => `${x(one[0])},${y(one[1])}`).join(" "), class: `curve ${kind}` }));
    if (dots && dots[i])
      for (const one of curve) svg.append(drawn("circle", { cx: x(one[0]), cy: y(one[1]), r: 2.5, class: `dot ${kind}` }));
  });
  return figure;
}

// A run that was killed does not log its end.
function stateOf(figures) {
  const quiet = (Date.now() - new Date(figures.time)) / 1000;
  return figures.state === "training" && quiet > QUIET ? `training or killed: no event for ${duration(quiet)}` : figures.state;
}

function showFigures(figures) {
  const rows = [
    ["State", stateOf(figures)],
    ["Step", figures.steps === null ? number(figures.step, 0) : `${number(figures.step, 0)} of ${number(figures.steps, 0)}`],
    ["Time left", duration(figures.seconds_left)],
    ["Epoch", number(figures.epoch, 2)],
    ["Tokens read", number(figures.tokens, 0)],
    ["Tokens per second", number(figures.tokens_per_second, 0)],
    ["Training loss", number(figures.loss, 4)],
    ["Best validation loss", figures.best_loss === null ? "–" : `${number(figures.best_loss, 4)} at step ${figures.best_step}`],
    ...(figures.reward_margin === null ? [] : [
      ["Reward margin", number(figures.reward_margin, 4)],
      ["Reward accuracy", number(figures.reward_accuracy, 3)],
    ]),
    ["Parameters", figures.parameters === null ? "–" : `${number(figures.parameters / 1e6, 2)} M`],
    ["Last event", figures.time === null ? "–" : new Date(figures.time).toLocaleString()],
  ];
  byId("figures").replaceChildren(...rows.map(([name, value]) => {
    const row = element("div");
    row.append(element("dt", name), element("dd", value));
    return row;
  }));
  byId("bar").max = figures.steps || figures.step || 1;
  byId("bar").value = figures.step;
  byId("config").textContent = figures.config || "";
}

function showAdvice(advice) {
  const list = element("ul");
  list.append(...advice.map((one) => element("li", `step ${one.step}: ${one.text}`)));
  byId("advice").replaceChildren(...(advice.length ? [element("h2", "Advice"), list] : []));
}

function showSources(sources) {
  const table = element("table");
  const head = element("tr");
  head.append(...["Source", "Validation loss", "Tokens read"].map((name) => element("th", name)));
  table.append(head, ...sources.map((one) => {
    const row = element("tr");
    row.append(element("td", one.name), element("td", number(one.loss, 4), "n"), element("td", number(one.tokens, 0), "n"));
    return row;
  }));
  byId("sources").replaceChildren(...(sources.length ? [element("h2", "Sources"), table] : []));
}

function showTexts(texts) {
  const shown = texts.map((one) => {
    const text = element("div", undefined, "text");
    text.append(element("div", `step ${one.step}`, "step"), element("b", one.prompt), element("span", one.text));
    return text;
  });
  byId("texts").replaceChildren(...(shown.length ? [element("h2", "Texts"), ...shown] : []));
}

function showProblem(problem) {
  byId("problem").textContent = problem;
  byId("problem").hidden = !problem;
}

async function update() {
  try {
    const answer = await fetch("/progress");
    const run = await answer.json();
    byId("name").textContent = run.name;
    document.title = `toynn watch: ${run.name}`;
    showProblem(run.error || "");
    if (!run.error) {
      showFigures(run.figures);
      const charts = run.figures.reward_margin === null ? CHARTS : CHARTS_OF_PAIRS;
      byId("curves").replaceChildren(
        ...charts.map(([title, names, note, dots]) => chart(title, names.map((name) => run.curves[name]), note, dots))
      );
      showAdvice(run.advice);
      showSources(run.sources);
      showTexts(run.texts);
    }
  } catch (error) {
    showProblem("The server does not answer. Start `toynn watch` again.");
  }
  setTimeout(update, SECONDS * 1000);
}

update();
