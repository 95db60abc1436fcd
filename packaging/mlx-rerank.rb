class MlxRerank < Formula
  desc "@DESCRIPTION@"
  homepage "@ADDRESS@"
  url "@ADDRESS@/releases/download/v@VERSION@/@SDIST@"
  sha256 "@SHA256@"
  license "MIT"

  depends_on arch: :arm64
  depends_on macos: :sonoma
  depends_on "python@3.13"

  # Libraries in wheels have no room for the longer paths that would be written into them.
  preserve_rpath

  def install
    # All dependencies come as wheels, as for pip: this formula is for a tap, since Homebrew's core wants a resource for each.
    system "python3.13", "-m", "venv", libexec
    system libexec/"bin/pip", "install", "--no-cache-dir", buildpath
    bin.install_symlink libexec/"bin/mlx-rerank"
    generate_completions_from_executable(bin/"mlx-rerank", shell_parameter_format: :typer)
  end

  service do
    run [opt_bin/"mlx-rerank", "serve"]
    keep_alive successful_exit: false
    process_type :interactive
    working_dir var
    log_path var/"log/mlx-rerank.log"
    error_log_path var/"log/mlx-rerank.log"
  end

  test do
    (testpath/"passages.txt").write "A stone.\nPandas eat bamboo.\n"
    ranked = shell_output("#{bin}/mlx-rerank rank 'What do pandas eat?' passages.txt --top-n 1 --device cpu")
    assert_match "bamboo", ranked

    port = free_port
    server = spawn bin/"mlx-rerank", "serve", "--port", port.to_s, "--device", "cpu"
    begin
      asked = "curl --silent --retry 30 --retry-connrefused http://127.0.0.1:#{port}/health"
      assert_match "ok", shell_output(asked)
    ensure
      Process.kill "TERM", server
      Process.wait server
    end
  end
end
