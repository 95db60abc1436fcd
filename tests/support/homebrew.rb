# A formula without Homebrew: ruby homebrew.rb FORMULA BIN prints what its service runs, and runs its test with the commands in BIN.
require "open3"
require "pathname"
require "socket"
require "tmpdir"

class Pathname
  def to_str = to_s # as Homebrew has it
end

class Formula
  SERVICE = [:run, :keep_alive, :process_type, :working_dir, :log_path, :error_log_path]
  Service = Class.new { SERVICE.each { |name| define_method(name) { |*values, **options| puts [name, *values, options].join(" ") } } }

  class << self
    [:desc, :homepage, :url, :sha256, :license, :depends_on, :preserve_rpath].each { |name| define_method(name) { |*, **| nil } }
    attr_reader :checks

    def service(&block) = Service.new.tap { |made| made.define_singleton_method(:var) { Pathname("var") } }
                                     .tap { |made| made.define_singleton_method(:opt_bin) { Pathname("bin") } }.instance_eval(&block)
    def test(&block) = @checks = block
  end

  attr_reader :bin, :testpath

  def initialize(bin, testpath)
    @bin, @testpath = Pathname(bin), Pathname(testpath)
  end

  def free_port = TCPServer.open("127.0.0.1", 0) { |server| server.addr[1] }

  def shell_output(command)
    said, status = Open3.capture2(command)
    raise "#{command}: #{status}" unless status.success?
    said
  end

  def assert_match(expected, found)
    raise "no #{expected} in #{found}" unless found.match?(expected)
  end
end

load ARGV[0]
Dir.mktmpdir do |work|
  Dir.chdir(work) { MlxRerank.new(ARGV[1], work).instance_eval(&MlxRerank.checks) }
end
