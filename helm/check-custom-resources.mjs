// Checks custom resources (KEDA, cert-manager, Prometheus operator, Gateway API) against the schemas of their makers, as the npm
// packages @kubernetes-models/* carry them: first by their types, which know every key, then by their validators, which know
// patterns and limits.
//
//     node check-custom-resources.mjs MODELS resources.json
//
// MODELS is a folder with node_modules; resources.json a list of {from, resource}.

import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const PACKAGES = {
    "keda.sh": "keda",
    "cert-manager.io": "cert-manager",
    "monitoring.coreos.com": "prometheus-operator",
    "gateway.networking.k8s.io": "gateway-api",
};

const [models, list] = process.argv.slice(2);
const resources = JSON.parse(readFileSync(list, "utf8"));
const moduleOf = ({ apiVersion, kind }) => {
    const group = apiVersion.split("/")[0];
    if (!PACKAGES[group]) throw new Error(`no schema is known for ${apiVersion} ${kind}`);
    return `@kubernetes-models/${PACKAGES[group]}/${apiVersion}/${kind}`;
};

// One statement for each resource, so that each has its own line, and a mistake a place.
const kinds = new Map(resources.map(({ resource }) => [moduleOf(resource), resource.kind]));
const names = new Map([...kinds.keys()].map((module, index) => [module, `Kind${index}`]));
const imports = [...kinds].map(([module, kind]) => `import type { I${kind} as ${names.get(module)} } from "${module}";`);
const statements = resources.map(
    ({ resource }, index) => `export const resource${index}: ${names.get(moduleOf(resource))} = ${JSON.stringify(resource)};`,
);
const source = join(models, "resources.ts");
writeFileSync(source, [...imports, ...statements].join("\n"));
const compiler = createRequire(pathToFileURL(join(models, "package.json"))).resolve("typescript/bin/tsc");
const options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022", "--pretty", "false"];
let failed = false;
try {
    execFileSync(process.execPath, [compiler, ...options, source], { encoding: "utf8" });
} catch (error) {
    failed = true;
    for (const line of error.stdout.trim().split("\n")) {
        const place = /resources\.ts\((\d+),\d+\): (.*)/.exec(line);
        const wrong = place && resources[Number(place[1]) - imports.length - 1];
        console.error(wrong ? `${wrong.from}: ${wrong.resource.kind} ${wrong.resource.metadata.name}: ${place[2]}` : line);
    }
}

writeFileSync(
    join(models, "kinds.mjs"),
    [...kinds].map(([module, kind]) => `export { ${kind} as ${names.get(module)} } from "${module}";`).join("\n"),
);
const classes = await import(pathToFileURL(join(models, "kinds.mjs")));
for (const { from, resource } of resources) {
    try {
        new classes[names.get(moduleOf(resource))](resource).validate();
    } catch (error) {
        failed = true;
        console.error(`${from}: ${resource.kind} ${resource.metadata.name}: ${error.message}`);
    }
}
console.log(`${resources.length} custom resources of ${kinds.size} kinds checked`);
process.exit(failed ? 1 : 0);
