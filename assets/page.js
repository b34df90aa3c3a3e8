// What Gradio's widgets lack: words for the example pictures, arrow keys for tabs and sliders, a status line that is
// read out, a page to drop files on.
(examplePhotos) => {
  // Screen readers follow an element that stays, but Gradio replaces the whole status line with every step. It is in a
  // closed shadow, so that the page's own text has every sentence once.
  const host = document.createElement("div");
  host.className = "spoken";
  const spoken = document.createElement("div");
  spoken.setAttribute("role", "status");
  host.attachShadow({ mode: "closed" }).append(spoken);
  document.body.append(host);
  const announced = new Map(["status", "lab-status", "batch-status", "video-status"].map((id) => [id, null]));

  const PHOTOS = "image/*,.heic,.heif,.tif,.tiff"; // what file dialogs offer; some know no type for the last ones
  const attend = () => {
    document.querySelectorAll("#examples img").forEach((picture, index) => (picture.alt = examplePhotos[index]));
    document.querySelectorAll(".photo input[type=file]").forEach((input) => (input.accept = PHOTOS));
    document.querySelectorAll("footer img:not([alt=''])").forEach((icon) => (icon.alt = "")); // beside the same word
    document.querySelectorAll("canvas[tabindex='1']").forEach((scene) => (scene.tabIndex = 0)); // in its own turn
    for (const radios of document.querySelectorAll("fieldset")) {
      // One name for all choices, as arrow keys and "2 of 3" need; Gradio gives each its own.
      const [first, ...others] = radios.querySelectorAll("input[type=radio]");
      for (const radio of others) if (radio.name !== first.name) radio.name = first.name;
    }
    for (const [id, before] of announced) {
      const sentence = document.querySelector(`#${id} .status span`)?.textContent;
      if (!sentence || sentence === before) continue;
      if (before !== null) spoken.textContent = sentence; // the first one is read with the page
      announced.set(id, sentence);
    }
  };
  const changes = { childList: true, subtree: true, attributes: true, attributeFilter: ["tabindex"] };
  new MutationObserver(attend).observe(document.body, changes); // widgets come and go with their tabs
  attend();

  // Arrow keys walk through a row of tabs, as people who use the keyboard expect; Enter opens one.
  document.addEventListener("keydown", (event) => {
    const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const tabs = [...(event.target.closest("[role=tablist]")?.querySelectorAll("[role=tab]") ?? [])];
    if (!way || !tabs.includes(event.target)) return;
    event.preventDefault();
    tabs[(tabs.indexOf(event.target) + way + tabs.length) % tabs.length].focus();
  });

  // A slider that is moved by keys is let go with the key, as by the pointer, whose release alone Gradio tells.
  const MOVES = /^(Arrow(Left|Right|Up|Down)|Home|End|Page(Up|Down))$/;
  document.addEventListener("keyup", (event) => {
    if (event.target.matches?.("input[type=range]") && MOVES.test(event.key))
      event.target.dispatchEvent(new PointerEvent("pointerup", { bubbles: true }));
  });

  // Any file goes to the server, whose decoder takes photos that browsers give no type, such as IMG_0001.HEIC, and
  // explains what it does not take. Gradio would refuse all of these alike.
  const typed = (file) => (file.type.startsWith("image/") ? file : new File([file], file.name, { type: "image/any" }));
  const carry = (files) => {
    const carrier = new DataTransfer();
    for (const file of files) carrier.items.add(typed(file));
    return carrier;
  };
  const needsType = (target, files) =>
    target.closest?.(".photo") && [...(files ?? [])].some((file) => !file.type.startsWith("image/"));
  document.addEventListener(
    "change",
    (event) => {
      const input = event.target;
      if (!needsType(input, input.files)) return;
      event.stopPropagation();
      input.files = carry(input.files).files;
      input.dispatchEvent(new Event("change", { bubbles: true }));
    },
    true,
  );

  // What is asked for last stays: a photo that is still being sent gives way to an example that is picked and to
  // another photo of its box. A request does not say whose it is, so it is that of the box that was touched last.
  let box = null;
  const sending = new WeakMap(); // boxes, and what ends their requests
  for (const kind of ["change", "drop", "click"])
    document.addEventListener(
      kind,
      ({ target }) => {
        box = target.closest?.(".photo");
        const tab = target.closest?.(".gallery-item")?.closest("#studio, #lab");
        sending.get(tab?.querySelector(".photo"))?.abort();
      },
      true,
    );

  // Many photos are sent one by one: a request has the limit of one photo.
  const send = window.fetch;
  const answered = (paths) =>
    new Response(JSON.stringify(paths), { headers: { "content-type": "application/json" } });
  window.fetch = async (address, request) => {
    const files = request?.body instanceof FormData ? request.body.getAll("files") : [];
    if (files.length === 1 && box) {
      const end = new AbortController();
      sending.get(box)?.abort();
      sending.set(box, end);
      return send(address, { ...request, signal: end.signal }).catch((error) => {
        if (!end.signal.aborted) throw error;
        return answered([]); // Gradio leaves the box as it is
      });
    }
    if (files.length < 2) return send(address, request);
    const paths = [];
    for (const file of files) {
      const body = new FormData();
      body.append("files", file);
      const answer = await send(address, { ...request, body });
      if (!answer.ok) return answer;
      paths.push(...(await answer.json()));
    }
    return answered(paths);
  };

  // A manifest may be dropped anywhere, also on the field for photos, which would refuse it. Any other file that
  // misses a field does not make the browser leave the page.
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault());
  document.addEventListener("drop", (event) => holdsFiles(event) && event.preventDefault());
  document.addEventListener(
    "drop",
    (event) => {
      const items = [...(event.dataTransfer?.items ?? [])].filter((item) => item.kind === "file");
      const folders = items.map((item) => item.webkitGetAsEntry?.()?.isDirectory); // which cannot be read as files
      const files = [...(event.dataTransfer?.files ?? [])].map((file, number) =>
        folders[number] ? new File([], file.name) : file,
      );
      const isManifest = files.some((file) => file.name.toLowerCase().endsWith(".json"));
      if (!isManifest && !folders.includes(true) && !needsType(event.target, files)) return;
      event.preventDefault();
      event.stopPropagation();
      if (!isManifest) {
        event.target.dispatchEvent(new DragEvent("drop", { bubbles: true, dataTransfer: carry(files) }));
        return;
      }
      const input = document.getElementById("replay").previousElementSibling; // the button's own field of files
      input.files = event.dataTransfer.files;
      input.dispatchEvent(new Event("change", { bubbles: true }));
    },
    true,
  );
}
