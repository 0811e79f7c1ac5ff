// The page follows one stream: a `table` says how the orders stand, an `order` what was committed since.
// The browser reconnects by itself and names the last id it has seen; the server goes on from there.

const SHOWN_EVENTS = 200;
const NEXT_STATUS = { new: "paid", paid: "shipped" };
const STATES = { live: "Live", waiting: "Reconnecting …", closed: "Disconnected: reload the page" };
const REASONS = {
  gap: "More happened while this page was away than the server keeps. The orders were loaded again.",
  restarted: "The server was started anew. The orders were loaded again.",
};

const byId = (id) => document.getElementById(id);
const [list, events, form, refused] = ["orders", "events", "new", "refused"].map(byId);
const rows = new Map();

// The stream

const source = new EventSource("events");
const showState = (state) => {
  byId("state").dataset.state = state;
  byId("state").textContent = STATES[state];
};
source.addEventListener("open", () => showState("live"));
source.addEventListener("error", () => showState(source.readyState === EventSource.CLOSED ? "closed" : "waiting"));
source.addEventListener("table", ({ data }) => {
  const { reason, orders } = JSON.parse(data);
  const numbers = new Set(orders.map((order) => order.number));
  [...rows.keys()].filter((number) => !numbers.has(number)).forEach(removeOrder);
  orders.forEach((order) => showOrder(order));
  if (reason in REASONS) addNotice(REASONS[reason]);
  suggestNumber();
});
source.addEventListener("order", ({ data, lastEventId }) => {
  const event = JSON.parse(data);
  if (event.type === "delete") removeOrder(event.order.number);
  else showOrder(event.order, true);
  addEvent(event, lastEventId);
  suggestNumber();
});

// The orders

function showOrder(order, changed = false) {
  const row = rows.get(order.number) ?? addRow(order.number);
  const part = (name) => row.querySelector(name);
  part(".order-customer").textContent = order.customer;
  part(".what").textContent = order.item;
  part(".order-quantity").textContent = order.quantity;
  part(".status").textContent = part(".status").dataset.status = order.status;
  const next = NEXT_STATUS[order.status];
  part(".next").textContent = next ? `Mark ${next}` : "Done";
  // Not `disabled`: that would take the focus away from somebody who has just pressed it.
  part(".next").setAttribute("aria-disabled", String(!next));
  row.order = order;
  if (changed) flash(row, "changed");
}

function addRow(number) {
  const row = byId("order-row").content.cloneNode(true).firstElementChild;
  rows.set(number, row);
  row.dataset.number = number;
  row.querySelector(".order-number").textContent = number;
  row.querySelector(".amount").setAttribute("aria-label", `Quantity of ${number}`);
  const button = (name, label, act) => {
    const found = row.querySelector(name);
    if (label) found.setAttribute("aria-label", label);
    found.addEventListener("click", () => found.getAttribute("aria-disabled") === "true" || act());
  };
  const path = `orders/${encodeURIComponent(number)}`;
  button(".less", `One less of ${number}`, () => send("PATCH", path, { quantity: row.order.quantity - 1 }));
  button(".more", `One more of ${number}`, () => send("PATCH", path, { quantity: row.order.quantity + 1 }));
  button(".next", "", () => send("PATCH", path, { status: NEXT_STATUS[row.order.status] }));
  button(".cancel", `Cancel ${number}`, () => send("DELETE", path));
  const following = [...rows.keys()].sort().find((other) => other > number);
  list.insertBefore(row, following ? rows.get(following) : null);
  count();
  return row;
}

function removeOrder(number) {
  const row = rows.get(number);
  if (!row) return;
  rows.delete(number);
  if (row.contains(document.activeElement)) {
    const neighbour = row.nextElementSibling ?? row.previousElementSibling;
    (neighbour?.querySelector(".cancel") ?? byId("orders-heading")).focus();
  }
  row.remove();
  count();
}

function count() {
  byId("count").textContent = rows.size === 1 ? "1 order" : `${rows.size} orders`;
}

function flash(element, name) {
  element.classList.remove(name);
  void element.offsetWidth; // so that the animation begins anew
  element.classList.add(name);
}

// The events

function addEvent(event, id) {
  const entry = document.createElement("li");
  entry.dataset.id = id;
  entry.append(element("span", "badge", event.type), element("strong", "", event.order.number));
  entry.firstChild.dataset.type = event.type;
  const at = element("time", "", new Date(event.delivered_at).toLocaleTimeString());
  at.dateTime = event.delivered_at;
  entry.append(at);
  const changes = element("ul", "changes", "");
  for (const [field, { old, new: now }] of Object.entries(event.changes)) {
    const change = element("li", "", `${field}: `);
    change.append(element("del", "", old), " → ", element("ins", "", now));
    changes.append(change);
  }
  if (changes.children.length) entry.append(changes);
  addEntry(entry);
}

function addNotice(text) {
  addEntry(element("li", "notice", text));
}

function addEntry(entry) {
  entry.classList.add("fresh");
  events.prepend(entry);
  while (events.children.length > SHOWN_EVENTS) events.lastElementChild.remove();
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

// What the user does

async function send(method, path, body) {
  refused.hidden = true;
  try {
    const response = await fetch(path, {
      method,
      headers: body && { "Content-Type": "application/json" },
      body: body && JSON.stringify(body),
    });
    const answer = response.status === 204 ? {} : await response.json();
    if (!response.ok) refuse(typeof answer.detail === "string" ? answer.detail : `status ${response.status}`);
    return response.ok ? answer : null;
  } catch {
    refuse("the server does not answer");
    return null;
  }
}

function refuse(reason) {
  refused.textContent = `Refused: ${reason}. Nothing was committed, so there is no event.`;
  refused.hidden = false;
}

form.addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  const order = Object.fromEntries(new FormData(form));
  order.quantity = Number(order.quantity);
  const answer = await send("POST", "orders/import", [order]);
  if (!answer) return;
  if (answer.refused.length) {
    refuse(`the database does not take ${order.number}: its number is taken, or its quantity not positive`);
    return;
  }
  form.reset();
  suggestNumber();
  form.elements.customer.focus();
});

byId("drop").addEventListener("click", () => send("POST", "connections/drop"));

function suggestNumber() {
  if (form.contains(document.activeElement) && form.elements.customer.value) return; // somebody is writing
  const numbers = [...rows.keys()].map((number) => Number(/^A-(\d+)$/.exec(number)?.[1] ?? 1000));
  form.elements.number.value = `A-${Math.max(1000, ...numbers) + 1}`;
}
