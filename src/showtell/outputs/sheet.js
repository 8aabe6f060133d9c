const figures = [...document.querySelectorAll("figure")];
const shown = document.getElementById("shown");
const input = document.querySelector("input");
const texts = figures.map((figure) => figure.querySelector("figcaption").textContent.toLowerCase());
const filter = () => {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  figures.forEach((figure, index) => {
    figure.hidden = !words.every((word) => texts[index].includes(word));
    count += !figure.hidden;
  });
  const all = figures.length.toLocaleString("en");
  shown.textContent = words.length ? `${count.toLocaleString("en")} of ${all}` : `${all} ${count === 1 ? "image" : "images"}`;
};
input.hidden = false;
input.addEventListener("input", filter);
filter();
