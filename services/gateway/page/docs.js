// Shows /openapi.json to people.

/** An element with these attributes and children; texts become text, never markup. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.flat());
  return made;
}

/** The text of a description, with its `code`. */
function prose(text) {
  return text.split(/(`[^`]+`)/).map((part) =>
    part.startsWith("`") ? element("code", {}, part.slice(1, -1)) : part);
}

/** The last part of a reference, which is a name. */
const nameOf = (reference) => reference.split("/").pop();

function lookUp(description, item) {
  if (!item.$ref) return item;
  return item.$ref.split("/").slice(1).reduce((part, key) => part[key], description);
}

/** What a value is, in words; names of schemas lead to them. */
function typeOf(schema) {
  if (schema.$ref) return [element("a", { href: `#${nameOf(schema.$ref)}` }, nameOf(schema.$ref))];
  if (schema.oneOf) return schema.oneOf.flatMap((one, index) => (index ? [" or ", ...typeOf(one)] : typeOf(one)));
  if (schema.type === "array") return ["array of ", ...typeOf(schema.items)];
  if (schema.enum && !schema["x-problems"]) return [schema.enum.join(", ")];
  if (schema.type === "object" && schema.additionalProperties) return ["object of ", ...typeOf(schema.additionalProperties)];
  return [schema.type ?? "any"];
}

function table(headings, rows) {
  const head = element("tr", {}, headings.map((heading) => element("th", { scope: "col" }, heading)));
  return element("div", { class: "scroll" }, element("table", {}, element("thead", {}, head), element("tbody", {}, rows)));
}

function row(name, type, text, attributes = {}) {
  return element("tr", attributes,
    element("td", {}, element("code", {}, name)), element("td", { class: "type" }, type), element("td", {}, prose(text)));
}

function parameters(description, operation) {
  const found = (operation.parameters ?? []).map((parameter) => lookUp(description, parameter));
  const rows = found.map(({ name, schema, description: text, in: place, required }) => {
    const more = [
      place === "query" ? "" : ` In the ${place}.`,
      required ? " Required." : "",
      schema.default === undefined ? "" : ` Default: \`${schema.default}\`.`,
      schema.examples ? ` For example \`${schema.examples.join("` or `")}\`.` : "",
    ];
    return row(name, typeOf(schema), text + more.join(""));
  });
  return rows.length ? [element("h3", {}, "Parameters"), table(["name", "type", "what it does"], rows)] : [];
}

function examples(operation) {
  const found = operation["x-examples"] ?? [];
  return found.flatMap(({ title, curl }) => [
    element("h3", {}, title),
    element("pre", {}, element("code", {}, curl.replaceAll("ORIGIN", location.origin).replaceAll("HOST", location.host))),
  ]);
}

function answers(description, operation) {
  const rows = Object.entries(operation.responses).map(([status, response]) => {
    const found = lookUp(description, response);
    const kinds = Object.entries(found.content ?? {}).flatMap(([kind, { schema }], index) =>
      [index ? element("br") : "", `${kind} `, ...(schema.$ref ? typeOf(schema) : [])]);
    return row(status, kinds, found.description);
  });
  return [element("h3", {}, "Answers"), table(["status", "what comes", "when"], rows)];
}

function route(description, path, method, operation) {
  return element("section", { id: operation.operationId },
    element("h2", {}, element("code", {}, element("span", { class: "method" }, method.toUpperCase()), path)),
    element("p", { class: "summary" }, operation.summary),
    element("p", {}, prose(operation.description ?? "")),
    ...examples(operation), ...parameters(description, operation), ...answers(description, operation));
}

function schema(name, { description: text, properties, required = [] }) {
  const rows = Object.entries(properties).map(([member, found]) => {
    const optional = required.includes(member) ? "" : " May be missing.";
    return row(member, typeOf(found), (found.description ?? "") + optional);
  });
  return element("section", { id: name }, element("h3", {}, name), element("p", {}, prose(text)),
    table(["member", "type", "what it says"], rows));
}

function problems(description) {
  const known = description.components.schemas.Problem.properties.reason["x-problems"];
  const rows = known.map(({ reason, status, description: text }) => row(reason, [String(status)], text, { id: reason }));
  return element("section", { id: "problems" }, element("h2", {}, "Problems"),
    element("p", {}, prose("The member `reason` of every error says what happened. Errors are `application/problem+json` (RFC 9457).")),
    table(["reason", "status", "what happened, what to do"], rows));
}

function show(description) {
  const routes = Object.entries(description.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })));
  document.getElementById("about").append(...prose(description.info.description));
  document.getElementById("paths").append(
    ...routes.map(({ path, operation }) => element("a", { href: `#${operation.operationId}` }, element("code", {}, path))),
    element("a", { href: "#problems" }, "Problems"), element("a", { href: "#schemas" }, "Schemas"));
  const main = document.getElementById("description");
  main.replaceChildren(
    ...routes.map(({ path, method, operation }) => route(description, path, method, operation)),
    problems(description),
    element("section", { id: "schemas" }, element("h2", {}, "Schemas"),
      ...Object.entries(description.components.schemas).map(([name, found]) => schema(name, found))));
  main.removeAttribute("aria-busy");
  // What the address names was not there yet when the page was loaded.
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

try {
  const response = await fetch("/openapi.json");
  if (!response.ok) throw new Error(`the server says ${response.status}`);
  show(await response.json());
} catch (error) {
  document.getElementById("description").replaceChildren(element("p", { role: "alert" }, `The description did not come: ${error.message}`));
}
